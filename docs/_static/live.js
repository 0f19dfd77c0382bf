/* The page "What a spike costs": spikes that can be moved, and the loss and the gradient that they give.

It repeats the formulas of three losses, for binary trains of 3 neurons. A test compares their values
and gradients with those of the library. */
"use strict";
(() => {
  const STEPS = 60, LABEL = 0, NAMES = ["A", "B", "C"];
  const RATES = [0.5, 0.02], RATE_WEIGHT = 3;
  const START = {
    spikes: [[12, 33, 35], [20, 45], [51]],
    target: [[8, 30, 46], [22, 45], [40]],
  };
  const steps = [...Array(STEPS).keys()];
  const sum = (x) => x.reduce((a, b) => a + b, 0);
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  // Filters of a train, and their adjoints, which filter against time.
  const filtered = (x, taps) =>
    steps.map((t) => sum(taps.slice(0, t + 1).map((tap, k) => tap * x[t - k])));
  const adjoint = (x, taps) => filtered([...x].reverse(), taps).reverse();

  // The penalty for counts out of bounds, and its derivative by each count.
  const outsideRates = (counts) => {
    const root = (n) => Math.sqrt(n + 3 / 8);
    const [lowest, highest] = RATES.map((rate) => root(rate * STEPS));
    const beyond = counts.map((n, c) =>
      (c === LABEL ? Math.min(root(n) - lowest, 0) : Math.max(root(n) - highest, 0)));
    return {
      value: RATE_WEIGHT * sum(beyond.map((d) => d * d)),
      slopes: beyond.map((d, c) => (RATE_WEIGHT * d) / root(counts[c])),
    };
  };

  /* Each loss: its one control, its arguments in Python, and a function from the trains
     [neuron][step] to the value, the gradient at each entry, and what is drawn and written. */
  const LOSSES = {
    CrossEntropy: {
      says: "The cross entropy of the spike counts: neuron A should fire more often than the others. " +
        "Only the counts matter, so add or remove spikes to change the loss.",
      control: { label: "temperature", min: 0.5, max: 10, step: 0.5, value: 1, unit: "" },
      withRates: "With the bounds, neuron A should also fire in at least half of the steps, and the others " +
        "in at most 2 % of them. Otherwise a penalty is added.",
      reads: ["count", "number of spikes so far"],
      options: (temperature, bounded) => [
        "time_axis=-1",
        ...(temperature === 1 ? [] : [`temperature=${temperature}`]),
        ...(bounded ? [`rates=(${RATES.join(", ")})`] : []),
      ],
      evaluate({ spikes, setting: temperature, bounded }) {
        const counts = spikes.map(sum);
        const odds = counts.map((n) => Math.exp((n - counts[LABEL]) / temperature));
        const all = sum(odds), others = sum(odds.filter((_, c) => c !== LABEL));
        const penalty = bounded ? outsideRates(counts) : { value: 0, slopes: [0, 0, 0] };
        const slopes = odds.map((o, c) =>
          (c === LABEL ? -others : o) / all / temperature + penalty.slopes[c]);
        const bound = (c) => (c === LABEL ? `at least ${RATES[0] * STEPS}` : `at most ${RATES[1] * STEPS}`);
        return {
          value: Math.log1p(others) + penalty.value,
          gradient: slopes.map((slope) => steps.map(() => slope)),
          traces: spikes.map((x) => steps.map((t) => sum(x.slice(0, t + 1)))),
          notes: counts.map((n, c) =>
            `count ${n}${bounded ? ` (${bound(c)})` : ""}, probability ${(odds[c] / all).toFixed(2)}`),
        };
      },
    },
    SpikeTime: {
      says: "The squared difference between the filtered spikes and the filtered target, summed over " +
        "all steps. Move each spike to its target.",
      control: { label: "time constant", min: 1, max: 20, step: 0.5, value: 5, unit: " steps" },
      hasTarget: true,
      reads: ["filtered", "filtered spikes"],
      options: (timeConstant) =>
        [`time_constant=${timeConstant}`, "time_axis=-1", 'reduction="sum"'],
      evaluate({ spikes, target, setting: timeConstant }) {
        const taps = steps.slice(0, Math.ceil(20 * timeConstant)).map((k) => Math.exp(-k / timeConstant));
        const own = spikes.map((x) => filtered(x, taps)), aim = target.map((x) => filtered(x, taps));
        const error = own.map((x, c) => x.map((v, t) => v - aim[c][t]));
        return {
          value: sum(error.flat().map((e) => e * e)),
          gradient: error.map((e) => adjoint(e.map((v) => 2 * v), taps)),
          traces: own, targetTraces: aim,
          notes: error.map((e) => `loss ${sum(e.map((v) => v * v)).toFixed(2)}`),
        };
      },
    },
    SpikeLatency: {
      says: "The mean squared error of the times of the first spikes. Neuron A should fire at the " +
        "target time, and the others should stay silent, which counts as a spike at step 60.",
      control: { label: "target time", min: 0, max: 59, step: 1, value: 5, unit: " steps" },
      reads: ["silent", "1 before the first spike, then 0"],
      options: (trueTime) => [`true_time=${trueTime}`, "time_axis=-1"],
      evaluate({ spikes, setting: trueTime }) {
        const silent = (x) => x.map((_, t) => x.slice(0, t + 1).reduce((p, s) => p * (1 - s), 1));
        const goals = spikes.map((_, c) => (c === LABEL ? trueTime : STEPS));
        const times = spikes.map((x) => sum(silent(x))), error = times.map((t, c) => t - goals[c]);
        // The survival is linear in each spike: without the one at t, summed from t on.
        const without = (x, t) => sum(silent(x.map((s, i) => (i === t ? 0 : s))).slice(t));
        return {
          value: sum(error.map((e) => e * e)) / spikes.length,
          gradient: spikes.map((x, c) => steps.map((t) => (-2 * error[c] * without(x, t)) / spikes.length)),
          traces: spikes.map(silent),
          notes: times.map((t, c) => `time ${t}, target ${goals[c]}`),
        };
      },
    },
  };

  // What is drawn: a row for each neuron, with its spikes, its trace and its gradient, in pixels.
  const RIGHT = 8, ROW = 166, GAP = 6, NARROW = 500;
  const NUMBERS_AT = 34, SPIKES_AT = 62, TRACE_AT = 130, TRACE_HEIGHT = 44, STRIP_AT = 136;
  let left, width; // of the steps
  const x = (t) => left + ((t + 0.5) * width) / STEPS;
  const set = (node, attributes) => {
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  };
  const element = (parent, name, attributes = {}, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    set(made, attributes);
    made.textContent = text;
    return parent.appendChild(made);
  };

  const root = document.getElementById("live");
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const svg = find("picture"), slider = find("control"), choice = find("loss"), rates = find("rates");
  const rows = NAMES.map((name, c) => {
    const g = element(svg, "g", { transform: `translate(0 ${c * ROW})` });
    const label = element(g, "rect", { width: "100%", height: ROW - 8, class: "live-label" });
    const title = element(g, "text", { y: 16 });
    const text = (y, words) => element(g, "text", { x: 0, y, class: "live-row-name" }, words);
    text(SPIKES_AT + 4, "spikes");
    text(STRIP_AT + 11, "gradient");
    const read = text(TRACE_AT - 16, "");
    const hit = element(g, "rect", { y: SPIKES_AT - 20, height: 40, class: "live-row" });
    hit.addEventListener("click", (event) => add(c, "spikes", stepAt(event)));
    return {
      g, label, title, read, hit,
      strip: steps.map(() => element(g, "rect", { y: STRIP_AT, height: 14 })),
      target: element(g, "polyline", { class: "live-target-trace" }),
      trace: element(g, "polyline", { class: "live-trace" }),
    };
  });
  let marks = [], dragged = null, active = null;

  const stepAt = (event) => {
    const from = svg.getBoundingClientRect().left + left;
    return clamp(Math.floor(((event.clientX - from) / width) * STEPS), 0, STEPS - 1);
  };
  const taken = (c, kind, t) => marks.some((m) => m.c === c && m.kind === kind && m.t === t);
  const trains = (kind) => NAMES.map((_, c) => steps.map((t) => +taken(c, kind, t)));

  function add(c, kind, t) {
    if (taken(c, kind, t)) return;
    const g = element(rows[c].g, "g", { class: `live-${kind}`, tabindex: 0, role: "slider",
      "aria-valuemin": 0, "aria-valuemax": STEPS - 1,
      "aria-label": `${kind === "spikes" ? "spike" : "target spike"} of neuron ${NAMES[c]}` });
    element(g, "rect", { x: -9, y: SPIKES_AT - 20, width: 18, height: 40, class: "live-grip" });
    if (kind === "spikes") {
      element(g, "polyline", { class: "live-leader" });
      element(g, "line", { y1: SPIKES_AT - 16, y2: SPIKES_AT + 16 });
      element(g, "text", { y: NUMBERS_AT, class: "live-number" });
    } else element(g, "circle", { cy: SPIKES_AT, r: 7 });
    const mark = { c, kind, t, g };
    g.addEventListener("pointerdown", () => { dragged = mark; g.focus(); });
    for (const name of ["focus", "pointerenter"]) g.addEventListener(name, () => { active = dragged ?? mark; draw(); });
    g.addEventListener("dblclick", () => remove(mark));
    g.addEventListener("keydown", (event) => {
      const to = stepOfKey(mark, event.key);
      if (to !== undefined) move(mark, to);
      else if (event.key === "Delete" || event.key === "Backspace") remove(mark);
      else return;
      event.preventDefault();
    });
    marks.push(mark);
    draw();
  }

  function stepOfKey(mark, key) { // beyond the other spikes, which keep their steps
    const free = steps.filter((t) => t === mark.t || !taken(mark.c, mark.kind, t));
    const before = (t) => free.findLast((f) => f <= t) ?? free[0];
    const after = (t) => free.find((f) => f >= t) ?? free.at(-1);
    return {
      ArrowLeft: before(mark.t - 1), ArrowDown: before(mark.t - 1), PageDown: before(mark.t - 10),
      ArrowRight: after(mark.t + 1), ArrowUp: after(mark.t + 1), PageUp: after(mark.t + 10),
      Home: free[0], End: free.at(-1),
    }[key];
  }

  function move(mark, t) {
    if (!taken(mark.c, mark.kind, t)) mark.t = t;
    draw();
  }

  function remove(mark) {
    marks = marks.filter((m) => m !== mark);
    mark.g.remove();
    const next = marks.find((m) => m.c === mark.c && m.kind === mark.kind);
    (next?.g ?? find(`add-${mark.c}`)).focus();
    draw();
  }

  function addFirstFree(c) { // from the keyboard: in the middle, or as near as there is room
    const free = steps.filter((t) => !taken(c, "spikes", t));
    free.sort((a, b) => Math.abs(a - STEPS / 2) - Math.abs(b - STEPS / 2));
    if (free.length) { add(c, "spikes", free[0]); marks.at(-1).g.focus(); }
  }

  const line = (values, most) =>
    values.map((v, t) => `${x(t).toFixed(1)},${(TRACE_AT - (v / most) * TRACE_HEIGHT).toFixed(1)}`).join(" ");

  const short = (v) => {
    const size = Math.abs(v);
    if (size >= 10 || !size) return v.toFixed(0);
    return size >= 0.001 ? v.toPrecision(2) : v.toExponential(1);
  };

  /* Where labels of a width stand: in the order of the places that they want, as near to these as
     possible without overlap, and inside the picture. Labels that touch share their mean distance. */
  function spread(wanted, each) {
    const groups = [];
    wanted.forEach((place, i) => {
      let group = { size: 1, first: place - i * each };
      while (groups.length && groups.at(-1).first > group.first) {
        const before = groups.pop(), size = before.size + group.size;
        group = { size, first: (before.size * before.first + group.size * group.first) / size };
      }
      groups.push(group);
    });
    const last = left + width - (wanted.length - 0.5) * each;
    const firsts = groups.flatMap(({ size, first }) => Array(size).fill(first));
    return firsts.map((first, i) => clamp(first, left + each / 2, last) + i * each);
  }

  // The numbers of a neuron: all, or every second or third if there is no room, with the active one.
  function placeNumbers(own) {
    own.sort((a, b) => a.t - b.t);
    const texts = own.map(({ g }) => g.querySelector("text"));
    const each = GAP + Math.max(0, ...texts.map((text) => text.getComputedTextLength()));
    const every = Math.ceil((own.length * each) / width), chosen = Math.max(0, own.indexOf(active));
    const shown = own.filter((_, i) => (i - chosen) % every === 0);
    const places = spread(shown.map(({ t }) => x(t)), each);
    for (const mark of own) {
      const by = places[shown.indexOf(mark)] - x(mark.t); // NaN if it is not shown
      const [leader, text] = [mark.g.querySelector("polyline"), mark.g.querySelector("text")];
      for (const part of [leader, text]) set(part, { display: Number.isNaN(by) ? "none" : "inline" });
      if (Number.isNaN(by)) continue;
      text.setAttribute("x", by.toFixed(2));
      leader.setAttribute("points", `0,${SPIKES_AT - 16} ${by.toFixed(2)},${NUMBERS_AT + 3}`);
    }
  }

  function draw() {
    const loss = LOSSES[choice.value], setting = Number(slider.value);
    const bounded = Boolean(loss.withRates && rates.checked);
    const [spikes, target] = [trains("spikes"), trains("target")];
    const { value, gradient, traces, targetTraces, notes } =
      loss.evaluate({ spikes, target, setting, bounded });
    const most = Math.max(1e-9, ...traces.flat(), ...(targetTraces ?? []).flat());
    const steepest = Math.max(1e-12, ...gradient.flat().map(Math.abs));
    rows.forEach((row, c) => {
      row.title.textContent = `${NAMES[c]}${!loss.hasTarget && c === LABEL ? ", the label" : ""}: ${notes[c]}`;
      row.trace.setAttribute("points", line(traces[c], most));
      row.target.setAttribute("points", targetTraces ? line(targetTraces[c], most) : "");
      row.strip.forEach((cell, t) => {
        const slope = gradient[c][t];
        const strength = Math.sqrt(Math.abs(slope / steepest)); // the root, so that small ones are seen
        set(cell, { class: slope < 0 ? "live-lowers" : "live-raises", opacity: strength.toFixed(3) });
      });
    });
    for (const { c, kind, t, g } of marks) {
      const slope = short(gradient[c][t]), isSpike = kind === "spikes";
      set(g, {
        transform: `translate(${x(t).toFixed(2)} 0)`,
        visibility: isSpike || loss.hasTarget ? "visible" : "hidden",
        "aria-valuenow": t,
        "aria-valuetext": isSpike ? `step ${t}, gradient ${slope}` : `step ${t}`,
      });
      if (isSpike) g.querySelector("text").textContent = slope;
    }
    rows.forEach((_, c) => placeNumbers(marks.filter((m) => m.c === c && m.kind === "spikes")));
    find("says").textContent = bounded ? `${loss.says} ${loss.withRates}` : loss.says;
    find("setting").textContent = `${setting}${loss.control.unit}`;
    find("value").textContent = value.toFixed(5);
    find("code").textContent = code(loss, setting, bounded, value);
    root.dataset.result = JSON.stringify({ value, gradient });
  }

  function code(loss, setting, bounded, value) {
    const train = (kind) => NAMES.map((_, c) => {
      const times = marks.filter((m) => m.c === c && m.kind === kind).map((m) => m.t);
      return `${kind}[0, ${c}, [${times.sort((a, b) => a - b).join(", ")}]] = 1`;
    });
    return [
      "import numpy as np",
      "import spikeloss_xp as sx",
      "",
      "spikes = np.zeros((1, 3, 60))  # one sample, three neurons, 60 steps",
      ...train("spikes"),
      ...(loss.hasTarget ? ["target = np.zeros((1, 3, 60))", ...train("target")] : [`target = [${LABEL}]  # neuron A`]),
      "",
      `loss = sx.${choice.value}(${loss.options(setting, bounded).join(", ")})`,
      "value, gradient = sx.value_and_grad(loss)(spikes, target)",
      `print(f"{value:.5f}")  # ${value.toFixed(5)}`,
      "print(gradient[spikes == 1])  # the numbers above the spikes",
    ].join("\n");
  }

  function choose() {
    const { control, reads, hasTarget, withRates } = LOSSES[choice.value];
    set(slider, { min: control.min, max: control.max, step: control.step });
    slider.value = control.value;
    find("control-name").textContent = control.label;
    find("rates-choice").hidden = !withRates;
    for (const part of ["target-key", "target-trace-key"]) find(part).hidden = !hasTarget;
    find("read-key").textContent = reads[1];
    rows.forEach((row, c) => {
      row.label.setAttribute("visibility", !hasTarget && c === LABEL ? "visible" : "hidden");
      row.read.textContent = reads[0];
    });
    draw();
  }

  function start() {
    for (const mark of marks) mark.g.remove();
    marks = [];
    rates.checked = false;
    for (const kind of ["target", "spikes"])
      START[kind].forEach((times, c) => times.forEach((t) => add(c, kind, t)));
    choose();
  }

  function fit() { // the picture has the width of the page, and letters of the same size on each
    const whole = svg.getBoundingClientRect().width, narrow = whole < NARROW;
    svg.classList.toggle("live-narrow", narrow);
    left = narrow ? RIGHT : 68;
    width = whole - left - RIGHT;
    for (const { title, hit, strip } of rows) {
      title.setAttribute("x", left);
      set(hit, { x: left, width });
      strip.forEach((cell, t) => set(cell, { x: x(t - 0.5), width: width / STEPS }));
    }
    draw();
  }

  svg.setAttribute("height", NAMES.length * ROW);
  for (const name of Object.keys(LOSSES)) choice.add(new Option(name));
  choice.addEventListener("change", choose);
  for (const control of [slider, rates]) control.addEventListener("input", draw);
  find("again").addEventListener("click", start);
  addEventListener("pointermove", (event) => { if (dragged) move(dragged, stepAt(event)); });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { dragged = null; });
  NAMES.forEach((_, c) => find(`add-${c}`).addEventListener("click", () => addFirstFree(c)));
  root.hidden = false;
  fit();
  start();
  new ResizeObserver(fit).observe(svg);
})();
