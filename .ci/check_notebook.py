"""Run the notebook from top to bottom, without the Hub and in its folder, as Jupyter does.

It uses the model and the sample that lie in `outputs/`, and makes them where they are missing. `--store`
writes what the cells gave back into it, but for warnings and bars.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path("modeling_mmner/inference/first_hour.ipynb")
MOST_SECONDS = 600

os.environ |= {"HF_HUB_OFFLINE": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
notebook = nbformat.read(NOTEBOOK, as_version=4)
started = time.perf_counter()
client = NotebookClient(
    notebook, timeout=MOST_SECONDS, coalesce_streams=True, record_timing=False,
    resources={"metadata": {"path": str(NOTEBOOK.parent)}},
)  # fmt: skip
client.execute()
taken = time.perf_counter() - started
print(f"{NOTEBOOK}: {len(notebook.cells)} cells, {taken:.0f} s")
if "--store" in sys.argv:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    del notebook.metadata["language_info"]["version"]  # it would change with each machine
    nbformat.write(notebook, NOTEBOOK)
if taken > MOST_SECONDS:
    raise SystemExit(f"expected at most {MOST_SECONDS} s, found {taken:.0f}")
