/* The page "What a spike costs": spikes that can be moved, and what a loss and its gradient are then.

It has the formulas of three losses once more, for binary trains of 3 neurons, and a test compares
their values and gradients with those of the library. */
"use strict";
(() => {
  const STEPS = 60, LABEL = 0, NAMES = ["neuron A", "neuron B", "neuron C"];
  const START = {
    spikes: [[12, 33, 35], [20, 45], [51]],
    target: [[8, 30, 46], [22, 45], [40]],
  };
  const steps = [...Array(STEPS).keys()];
  const sum = (x) => x.reduce((a, b) => a + b, 0);

  // Filters of a train, and their adjoints, which filter against time.
  const filtered = (x, taps) =>
    steps.map((t) => sum(taps.slice(0, t + 1).map((tap, k) => tap * x[t - k])));
  const adjoint = (x, taps) => filtered([...x].reverse(), taps).reverse();

  /* Each loss: its one control, and a function from the trains [neuron][step] to the value, the
     gradient at each entry, and the traces that are drawn. */
  const LOSSES = {
    SpikeTime: {
      says: "the squared difference of the filtered trains, summed over all steps",
      control: { label: "time constant", min: 1, max: 20, step: 0.5, value: 5, unit: "steps" },
      hasTarget: true,
      reads: ["filtered", "filtered spikes"],
      evaluate(spikes, target, timeConstant) {
        const taps = steps.slice(0, Math.ceil(20 * timeConstant)).map((k) => Math.exp(-k / timeConstant));
        const own = spikes.map((x) => filtered(x, taps)), aim = target.map((x) => filtered(x, taps));
        const error = own.map((x, c) => x.map((v, t) => v - aim[c][t]));
        return {
          value: sum(error.flat().map((e) => e * e)),
          gradient: error.map((e) => adjoint(e.map((v) => 2 * v), taps)),
          traces: own, targetTraces: aim,
        };
      },
    },
    CrossEntropy: {
      says: "the cross entropy of the roots of the counts in a moving window, mean over the steps",
      control: { label: "window", min: 1, max: 60, step: 1, value: 20, unit: "steps" },
      reads: ["roots", "roots of the counts in the window"],
      evaluate(spikes, target, window) {
        const taps = steps.slice(0, window).map(() => 1);
        const root = spikes.map((x) => filtered(x, taps).map((n) => Math.sqrt(n + 3 / 8)));
        const p = root.map(() => []);
        const terms = steps.map((t) => {
          const largest = Math.max(...root.map((u) => u[t]));
          const weight = root.map((u) => Math.exp(u[t] - largest)), all = sum(weight);
          weight.forEach((w, c) => { p[c][t] = w / all; });
          return Math.log(all) + largest - root[LABEL][t];
        });
        const slope = (c, t) => (p[c][t] - (c === LABEL)) / (2 * root[c][t]) / STEPS;
        return {
          value: sum(terms) / STEPS,
          gradient: root.map((_, c) => adjoint(steps.map((t) => slope(c, t)), taps)),
          traces: root,
        };
      },
    },
    SpikeLatency: {
      says: "the squared error of the times of the first spikes: early for the label, silent for the others",
      control: { label: "target time of the label", min: 0, max: 59, step: 1, value: 5, unit: "steps" },
      reads: ["silent", "1 while the neuron has been silent, then 0"],
      evaluate(spikes, target, trueTime) {
        const silent = (x) => x.map((_, t) => x.slice(0, t + 1).reduce((p, s) => p * (1 - s), 1));
        const error = spikes.map((x, c) => sum(silent(x)) - (c === LABEL ? trueTime : STEPS));
        // The survival is linear in each spike: without the one at t, summed from t on.
        const without = (x, t) => sum(silent(x.map((s, i) => (i === t ? 0 : s))).slice(t));
        return {
          value: sum(error.map((e) => e * e)) / spikes.length,
          gradient: spikes.map((x, c) => steps.map((t) => (-2 * error[c] * without(x, t)) / spikes.length)),
          traces: spikes.map(silent),
        };
      },
    },
  };

  // What is drawn: a row for each neuron, with its spikes, its trace and its gradient.
  const WIDTH = 760, LEFT = 66, RIGHT = 8, ROW = 166, STEP = (WIDTH - LEFT - RIGHT) / STEPS;
  const NUMBERS_AT = 34, SPIKES_AT = 60, TRACE_AT = 128, TRACE_HEIGHT = 44, STRIP_AT = 134;
  const x = (t) => LEFT + (t + 0.5) * STEP;
  const element = (parent, name, attributes = {}, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return parent.appendChild(made);
  };

  const root = document.getElementById("live");
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const svg = find("picture"), slider = find("control"), choice = find("loss");
  const rows = NAMES.map((name, c) => {
    const g = element(svg, "g", { transform: `translate(0 ${c * ROW})` });
    const label = element(g, "rect", { width: WIDTH, height: ROW - 8, class: "live-label" });
    const title = element(g, "text", { x: LEFT, y: 16, class: "live-name" });
    const text = (y, words) => element(g, "text", { x: LEFT - 8, y, class: "live-row-name", "text-anchor": "end" }, words);
    text(SPIKES_AT + 4, "spikes");
    text(STRIP_AT + 11, "gradient");
    const read = text(TRACE_AT - 16, "");
    const hit = element(g, "rect", { x: LEFT, y: SPIKES_AT - 22, width: WIDTH - LEFT - RIGHT, height: 40, class: "live-row" });
    hit.addEventListener("click", (event) => add(c, "spikes", stepAt(event)));
    return {
      g, label, title, read,
      strip: steps.map((t) => element(g, "rect", { x: x(t) - STEP / 2, y: STRIP_AT, width: STEP, height: 14 })),
      target: element(g, "polyline", { class: "live-target-trace" }),
      trace: element(g, "polyline", { class: "live-trace" }),
    };
  });
  let marks = [], dragged = null;

  const stepAt = (event) => {
    const box = svg.getBoundingClientRect();
    const t = Math.floor((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / STEP);
    return Math.min(Math.max(t, 0), STEPS - 1);
  };
  const taken = (c, kind, t) => marks.some((m) => m.c === c && m.kind === kind && m.t === t);
  const trains = (kind) => NAMES.map((_, c) => steps.map((t) => +taken(c, kind, t)));

  function add(c, kind, t) {
    if (taken(c, kind, t)) return;
    const g = element(rows[c].g, "g", { class: `live-${kind}`, tabindex: 0, role: "slider",
      "aria-valuemin": 0, "aria-valuemax": STEPS - 1,
      "aria-label": `${kind === "spikes" ? "spike" : "target spike"} of ${NAMES[c]}` });
    element(g, "rect", { x: -9, y: SPIKES_AT - 22, width: 18, height: 44, class: "live-grip" });
    if (kind === "spikes") {
      element(g, "line", { y1: SPIKES_AT - 16, y2: SPIKES_AT + 16 });
      element(g, "text", { y: NUMBERS_AT, "text-anchor": "middle", class: "live-number" });
    } else element(g, "circle", { cy: SPIKES_AT, r: 7 });
    const mark = { c, kind, t, g };
    g.addEventListener("pointerdown", () => { dragged = mark; g.focus(); });
    g.addEventListener("dblclick", () => remove(mark));
    g.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (by) move(mark, Math.min(Math.max(mark.t + by, 0), STEPS - 1));
      else if (event.key === "Delete" || event.key === "Backspace") remove(mark);
      else return;
      event.preventDefault();
    });
    marks.push(mark);
    draw();
  }

  function move(mark, t) {
    if (!taken(mark.c, mark.kind, t)) mark.t = t;
    draw();
  }

  function remove(mark) {
    marks = marks.filter((m) => m !== mark);
    mark.g.remove();
    draw();
  }

  function addFirstFree(c) { // from the keyboard: in the middle, or as near as there is room
    const free = steps.filter((t) => !taken(c, "spikes", t));
    free.sort((a, b) => Math.abs(a - STEPS / 2) - Math.abs(b - STEPS / 2));
    if (free.length) { add(c, "spikes", free[0]); marks.at(-1).g.focus(); }
  }

  const line = (values, most) =>
    values.map((v, t) => `${x(t).toFixed(1)},${(TRACE_AT - (v / most) * TRACE_HEIGHT).toFixed(1)}`).join(" ");

  function draw() {
    const loss = LOSSES[choice.value], setting = Number(slider.value);
    const { value, gradient, traces, targetTraces } =
      loss.evaluate(trains("spikes"), trains("target"), setting);
    const most = Math.max(1e-9, ...traces.flat(), ...(targetTraces ?? []).flat());
    const steepest = Math.max(1e-12, ...gradient.flat().map(Math.abs));
    rows.forEach((row, c) => {
      row.trace.setAttribute("points", line(traces[c], most));
      row.target.setAttribute("points", targetTraces ? line(targetTraces[c], most) : "");
      row.strip.forEach((cell, t) => {
        const slope = gradient[c][t];
        cell.setAttribute("class", slope < 0 ? "live-lowers" : "live-raises");
        cell.setAttribute("opacity", Math.abs(slope / steepest).toFixed(3));
      });
    });
    for (const { c, kind, t, g } of marks) {
      g.setAttribute("transform", `translate(${x(t).toFixed(2)} 0)`);
      g.setAttribute("visibility", kind === "spikes" || loss.hasTarget ? "visible" : "hidden");
      g.setAttribute("aria-valuenow", t);
      const slope = gradient[c][t].toPrecision(2);
      g.setAttribute("aria-valuetext", kind === "spikes" ? `step ${t}, gradient ${slope}` : `step ${t}`);
      if (kind === "spikes") g.querySelector("text").textContent = slope;
    }
    find("setting").textContent = `${setting} ${loss.control.unit}`;
    find("value").textContent = value.toPrecision(5);
    root.dataset.result = JSON.stringify({ value, gradient });
  }

  function choose() {
    const { says, control, reads, hasTarget } = LOSSES[choice.value];
    Object.assign(slider, { min: control.min, max: control.max, step: control.step });
    slider.value = control.value;
    find("control-name").textContent = control.label;
    find("says").textContent = says;
    for (const part of ["target-key", "target-trace-key"]) find(part).hidden = !hasTarget;
    find("read-key").textContent = reads[1];
    rows.forEach((row, c) => {
      const isLabel = !hasTarget && c === LABEL;
      row.label.setAttribute("visibility", isLabel ? "visible" : "hidden");
      row.title.textContent = isLabel ? `${NAMES[c]}, the label` : NAMES[c];
      row.read.textContent = reads[0];
    });
    draw();
  }

  function start() {
    for (const mark of marks) mark.g.remove();
    marks = [];
    for (const kind of ["target", "spikes"])
      START[kind].forEach((times, c) => times.forEach((t) => add(c, kind, t)));
    choose();
  }

  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${NAMES.length * ROW}`);
  for (const name of Object.keys(LOSSES)) choice.add(new Option(name));
  choice.addEventListener("change", choose);
  slider.addEventListener("input", draw);
  find("again").addEventListener("click", start);
  addEventListener("pointermove", (event) => { if (dragged) move(dragged, stepAt(event)); });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { dragged = null; });
  NAMES.forEach((_, c) => find(`add-${c}`).addEventListener("click", () => addFirstFree(c)));
  root.hidden = false;
  start();
})();
