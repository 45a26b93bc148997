"""The page as programs and agents use it, over HTTP: by `gradio_client` and by the Model Context Protocol."""

import ast
import asyncio
import base64

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from modeling_mmner.inference.demo import build_demo, launch
from modeling_mmner.inference.demo_answers import SAID
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from tests.demo_parts import TEXT, free_port, marking_model, processor_of
from tests.small_posts import SPECKLED, encoded

pytestmark = pytest.mark.slow
NAME = "find_entities"
PICTURE = encoded(SPECKLED)
DATA = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
META = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def address():
    """Where this process serves a page for agents, too."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny")
    launch(blocks, host="127.0.0.1", port=(port := free_port()), wait=False, mcp=True)
    yield f"http://127.0.0.1:{port}/"
    blocks.close()


@pytest.fixture(scope="module")
def expected() -> list[dict]:
    """What is to be found in the text and the picture."""
    predictor = BatchPredictor(marking_model(), PostReader(processor_of()), effects=True)
    (found,) = predictor.predict([{"text": TEXT, "image": PICTURE}])
    return found.entities


@pytest.fixture
def private(tmp_path):
    """A picture of the server's computer that nobody has uploaded."""
    (path := tmp_path / "private.png").write_bytes(PICTURE)
    return str(path)


def test_programs_find_entities(address, expected, private):
    """If it failed, the documented call would not work, by position or by name, or not tell what is wrong."""
    client = Client(address, verbose=False, download_files=False)
    api = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == [f"/{NAME}"] and not api["unnamed_endpoints"]
    names = [one["parameter_name"] for one in api["named_endpoints"][f"/{NAME}"]["parameters"]]
    assert names == ["text", "pictures", "context", "threshold"]
    uploaded = client.predict(TEXT, [handle_file(private)], "", 0.0, api_name=f"/{NAME}")
    sent = client.predict(text=TEXT, pictures=[DATA], api_name=f"/{NAME}")
    assert uploaded == sent == expected
    with pytest.raises(AppError, match="this page opens no path and fetches no address"):
        client.predict(TEXT, [{"path": "http://127.0.0.1:1/a.png", "meta": META}], api_name=f"/{NAME}")
    # Not by the client, which would upload it:
    body = {"data": [TEXT, [{"path": private, "meta": META}], "", 0]}
    event = httpx.post(f"{address}gradio_api/call/{NAME}", json=body).json()["event_id"]
    assert httpx.get(f"{address}gradio_api/call/{NAME}/{event}", timeout=30).text.startswith("event: error")


def test_agents_find_entities(address, expected, private):
    """If it failed, agents would have no tool or one that they cannot understand, or could read the server's
    files: Gradio passes what an agent sends on through its own client, which uploads whatever names a file.
    """

    async def use() -> None:
        async with (
            streamablehttp_client(f"{address}gradio_api/mcp/") as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            (tool,) = (await session.list_tools()).tools
            assert tool.name == NAME and tool.description.startswith("Find the people, places, organisations")
            asked = tool.inputSchema["properties"]
            assert all(asked[name]["description"] for name in ("text", "pictures", "context", "threshold"))
            found = await session.call_tool(NAME, {"text": TEXT, "pictures": [DATA]})
            assert not found.isError and ast.literal_eval(found.content[0].text) == expected
            assert (await session.call_tool(NAME, {"text": " "})).content[0].text == SAID["empty_text"]
            file = {"path": private, "meta": META}
            for given in ({"pictures": [file]}, {"pictures": file}, {"context": file}, {"other": file}):
                refused = await session.call_tool(NAME, {"text": TEXT} | given)
                assert refused.isError and "entity_group" not in refused.content[0].text
            for place in (private, "http://127.0.0.1:1/a.png"):
                refused = await session.call_tool(NAME, {"text": TEXT, "pictures": [place]})
                assert refused.isError and refused.content[0].text == SAID["upload_only"]

    asyncio.run(asyncio.wait_for(use(), 60))
