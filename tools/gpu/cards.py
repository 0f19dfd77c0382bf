"""Say what one library sees: its version, the GPU and its name, as a line of JSON.

``python tools/gpu/verify.py`` runs this in a process of its own.
"""

import json
import sys
import warnings
from importlib import metadata

from spikeloss_xp.backends._available import describe


def card(library: str) -> tuple[str, str]:
    """Return the name of the first GPU, and the version of CUDA that the library uses."""
    if library == "torch":
        import torch

        return torch.cuda.get_device_name(0), str(torch.version.cuda)
    if library == "jax":
        import jax

        place = jax.devices()[0]
        return place.device_kind, " ".join(place.client.platform_version.split())
    import cupy

    if hasattr(cupy, "IS_STAND_IN"):
        raise ValueError("cupy is the stand-in of the tests, which verifies nothing about a GPU")
    number = cupy.cuda.runtime.runtimeGetVersion()
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"]
    return name.decode(), f"{number // 1000}.{number % 1000 // 10}"


def main(library: str) -> None:
    """Print the version, the packages, and the GPU of a library, or why it sees none."""
    warnings.filterwarnings("ignore")
    # CuPy has a package for each version of CUDA.
    names = ("cupy-cuda12x", "cupy-cuda13x", "cupy") if library == "cupy" else (library,)
    installed = {package.name.lower() for package in metadata.distributions() if package.name}
    found = describe(library)
    packages = [name for name in names if name in installed]
    seen = {"version": found.version, "packages": packages, "problem": found.problem}
    if found.usable and not any(name.startswith(("cuda", "gpu")) for name in found.devices):
        seen["problem"] = f"no GPU: {', '.join(found.devices)} only"
    elif found.usable:
        try:
            seen["card"], seen["cuda"] = card(library)
        except Exception as error:  # the report is the error, of any kind
            seen["problem"] = f"{type(error).__name__}: {error}".partition("\n")[0]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
