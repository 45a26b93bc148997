"""The demo page in a real browser: served by the command, used by mouse and by keyboard."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from dataset_scripts.sample.examples import examples
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.inference.demo import SAID
from modeling_mmner.inference.explain import explain
from tests.demo_parts import HOSTILE, TEXT, answer, encodable, free_port, marking_model, processor_of

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
DRIVER = shutil.which("chromedriver")
MISSING = "no Chromium or Chrome with its chromedriver on the PATH"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (BROWSER and DRIVER), reason=MISSING)]
ROOT = Path(__file__).parents[2]
ARTEFACTS = Path(os.environ.get("MMNER_ARTEFACTS") or ROOT / "outputs" / "test_artefacts")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1280,1100",
)
WORD = ".textfield .token[role=button]"
EXAMPLE = "tbody tr:has(img)"
FILE_INPUTS = 3  # of the two galleries and, unseen, of the table
THUMBNAIL = "button[aria-label^='Thumbnail']"
CELLS = "img.base-image"
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const luminance = colours => {
    // Later colours are painted over earlier ones, as backgrounds are over those of their parents.
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const linear = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(channel => channel / 255)
        .map(channel => channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const behind = [];
for (let node = arguments[0]; node; node = node.parentElement)
    behind.unshift(getComputedStyle(node).backgroundColor);
const ground = luminance(['white', ...behind]);
const text = luminance(['white', ...behind, getComputedStyle(arguments[0]).color]);
return (Math.max(ground, text) + 0.05) / (Math.min(ground, text) + 0.05);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved model that marks every word, a picture, and a broken one."""
    folder = tmp_path_factory.mktemp("demo")
    marking_model().save_pretrained(folder / "model")
    processor_of().save_pretrained(folder / "model")
    Image.linear_gradient("L").resize((90, 60)).save(folder / "picture.png")
    Image.new("RGB", (40, 60), "green").save(folder / "second.png")
    posts = []
    for number, example in enumerate(examples()[:3]):
        example.picture.save(folder / f"{number}.png")
        posts.append(json.dumps({"text": example.text, "image": f"{number}.png"}))
    (folder / "posts.jsonl").write_text("\n".join(posts), encoding="utf-8")
    (folder / "broken.png").write_bytes((folder / "picture.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """The page's address, served by the command."""
    port, log = free_port(), folder / "log.txt"
    command = [sys.executable, "-m", "modeling_mmner", "demo", "--model", str(folder / "model")]
    command += ["--port", str(port), "--device", "cpu", "--card_examples", str(folder / "posts.jsonl")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        answer(process, f"http://127.0.0.1:{port}/config", log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A new browser that notes what it asks the network for."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


class Page:
    """The page as somebody uses it who knows its labels."""

    def __init__(self, browser, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.wait(lambda: self.all("button") and self.named("button", "Find entities"))

    def all(self, selector: str) -> list:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def named(self, selector: str, name: str):
        """The one element with this accessible name."""
        (found,) = [element for element in self.all(selector) if element.accessible_name == name]
        return found

    def wait(self, condition, seconds: float = 20):
        """The condition's value once it is true; elements that a new rendering takes away while it is read
        are no failure.
        """
        return WebDriverWait(
            self.browser, seconds, 0.05, ignored_exceptions=(StaleElementReferenceException, ValueError)
        ).until(lambda _: condition())

    def says(self, text: str) -> None:
        """Wait until a live region says this."""
        self.wait(lambda: any(text in region.text for region in self.all("[aria-live]")))

    def write(self, text: str) -> None:
        """Put a text into the box, whatever characters it has."""
        self.browser.execute_script(
            "arguments[0].value = JSON.parse(arguments[1]); arguments[0].dispatchEvent(new Event('input'))",
            self.named("textarea", "Text"),
            json.dumps(text),
        )

    def find(self) -> None:
        self.named("button", "Find entities").click()

    def answer(self, text: str) -> None:
        """Write a text, find its entities and wait for them."""
        self.write(text)
        self.find()
        read = f"return [...document.querySelectorAll('{WORD} .text')].map(one => one.textContent).join('')"
        self.wait(lambda: self.browser.execute_script(read) == encodable(text))

    def upload(self, *paths: Path, number: int = 0) -> None:
        """Choose files for the pictures (0) or for the others (1)."""
        before = len(self.all(THUMBNAIL))
        self.all("input[type=file]")[number].send_keys("\n".join(map(str, paths)))
        self.wait(lambda: len(self.all(THUMBNAIL)) == before + len(paths))

    def clear(self) -> None:
        """Take the post's pictures out."""
        self.wait(lambda: self.named("button", "Clear")).click()
        self.wait(lambda: not self.all(THUMBNAIL) and len(self.all("input[type=file]")) == FILE_INPUTS)

    def words(self) -> list:
        return self.all(WORD)

    def shown(self) -> list[tuple[str, str]]:
        """The marked entities with their labels."""
        marks = self.all(f"{WORD}.highlighted")
        parts = [
            [mark.find_element(By.CLASS_NAME, name).text for name in ("text", "label")] for mark in marks
        ]
        return [(text.strip(), label) for text, label in parts]

    def cells_of(self, word: str) -> str:
        """Wait for the entity's cells to be loaded; their source."""
        self.says(f"\u201c{word}\u201d")
        loaded = "return arguments[0].complete && arguments[0].naturalWidth > 0"
        image = self.wait(lambda: self.all(CELLS))[0]
        self.wait(lambda: self.browser.execute_script(loaded, image))
        return image.get_attribute("src")

    def active(self):
        return self.browser.switch_to.active_element


@pytest.fixture
def page(browser, address) -> Page:
    return Page(browser, address)


def test_from_text_and_pictures_to_entities_and_cells(page, folder):
    """If it failed, the page would not do what it is for: find entities, and show what the pictures did."""
    page.clear()
    page.upload(folder / "picture.png", folder / "second.png")
    page.upload(folder / "second.png", number=1)
    page.answer(TEXT)
    model = MMNERForTokenClassification.from_pretrained(folder / "model").eval()
    processor = MMNERProcessor.from_pretrained(folder / "model")
    pictures = [Image.open(folder / name) for name in ("picture.png", "second.png")]
    explanation = explain(model, processor, TEXT, images=pictures)
    assert page.shown() == [(entity["word"], entity["entity_group"]) for entity in explanation.entities]
    assert len(explanation.entities) == 6
    labels = [label.text for label in page.all("label") if label.text.startswith("With")]
    assert labels == list(SAID["cards"].values())
    page.cells_of("Jordan")
    page.words()[3].click()
    word, effect = explanation.entities[3]["word"], explanation.entities[3]["picture_effect"]
    page.says(f"The picture changes its score by {effect:+.2f}.")
    page.cells_of(word)
    table = page.all("[role=tabpanel]")[0]
    page.wait(lambda: all(entity["word"] in table.text.split() for entity in explanation.entities))
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    assert page.browser.save_screenshot(str(ARTEFACTS / "demo.png"))


def test_keyboard_alone_is_enough(page, folder):
    """If it failed, somebody without a mouse could not use the page."""
    page.clear()
    page.write("")
    page.upload(folder / "picture.png")
    page.all("body")[0].click()
    names = []
    while not (page.active().tag_name == "textarea" and page.active().accessible_name == "Text"):
        assert len(names) < 10, names
        page.active().send_keys(Keys.TAB)
        names.append(page.active().accessible_name)
    page.active().send_keys(TEXT, Keys.SHIFT + Keys.ENTER)
    page.cells_of("Jordan")
    for _ in range(20):
        page.active().send_keys(Keys.TAB)
        if page.active().get_attribute("role") == "button" and "Jordan" in page.active().text:
            break
    for key, word in ((Keys.ENTER, "posts"), (Keys.SPACE, "from")):
        page.active().send_keys(Keys.ARROW_RIGHT)
        assert page.active().text.startswith(word)
        page.active().send_keys(key)
        page.cells_of(word)
    assert page.named("textarea", "Text").get_attribute("value") == TEXT


def test_mistakes_are_answered_in_words_and_forgiven(page, folder):
    """If it failed, an empty text or a broken file would leave a blank page, a traceback or an old result."""
    page.write("")
    page.find()
    page.says(SAID["empty_text"])
    page.write(TEXT)
    page.clear()
    page.upload(folder / "broken.png")
    page.find()
    page.says(SAID["broken_picture"])
    assert page.words() == []
    page.clear()
    page.answer(TEXT)
    page.says(SAID["no_picture"])
    page.write("")
    page.find()
    page.says(SAID["empty_text"])
    page.wait(lambda: not page.words())


def test_examples_fill_the_page_and_run(page):
    """If it failed, a visitor with nothing at hand could not see what the picture is worth."""
    for number in (0, 2, 1):  # the first is answered when the page opens
        example = examples()[number]
        if number:
            page.all(EXAMPLE)[number].click()
        page.wait(lambda text=example.text: [word for word, _ in page.shown()] == text.split())
        assert page.named("textarea", "Text").get_attribute("value") == example.text
        page.cells_of(example.text.split()[0])


def test_hostile_text_stays_text(page):
    """If it failed, a text could run its own script in the page of whoever tries it, or break the page."""
    hostile = HOSTILE + "<img src=x onerror='window.hacked=1'> ${window.hacked=1} {{value}} \\u0041 `"
    page.answer(hostile)
    page.words()[0].click()
    page.says("\u201c<\u201d: person")
    assert page.browser.execute_script("return window.hacked") is None
    assert page.all(".textfield script, .textfield img, .textfield b, [role=status] script") == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_and_name_it(browser, address, folder, theme):
    """If it failed, a control would have no name for a screen reader, or text be too faint to read."""
    page = Page(browser, f"{address}?__theme={theme}")
    assert browser.execute_script("return document.documentElement.lang") == "en"
    assert browser.title == "model: entities of posts"
    assert [heading.text for heading in page.all("h1")] == ["Named entities of posts with pictures"]
    page.clear()
    page.upload(folder / "picture.png")
    page.answer(TEXT)
    page.cells_of("Jordan")
    controls = [one for one in page.all("button, input, textarea, a, [role=button]") if one.is_displayed()]
    hidden = page.all("[aria-hidden=true] button")  # in which Gradio measures its tabs
    controls = [one for one in controls if one not in hidden]
    assert len(controls) > 8
    nameless = [one for one in controls if not one.accessible_name.strip()]
    assert [one.get_attribute("outerHTML")[:200] for one in nameless] == []
    faint = {}
    kinds = ("h1", "p", "[role=status]", WORD, f"{WORD} .label", "textarea", "button.primary", "tbody td")
    for text in kinds:
        shown = [element for element in page.all(text) if element.is_displayed()]
        faint[text] = min(round(browser.execute_script(CONTRAST, element), 1) for element in shown)
    assert {text: ratio for text, ratio in faint.items() if ratio < 4.5} == {}


def test_page_asks_nobody_else(page, browser, address, folder):
    """If it failed, the page would not work without the internet, or tell others who reads it. Runs after the
    tests above.
    """
    page.all(EXAMPLE)[0].click()
    page.wait(page.words)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = [parameters["request"]["url"] for parameters in sent]
    own = (address, "data:", "blob:", "chrome:", "chrome-untrusted:")
    assert any(url.startswith(address) for url in asked)
    assert [url for url in asked if not url.startswith(own)] == []
    # The broken picture of a test above is one that the browser cannot show either.
    problems = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    left = ("signal is aborted", "Connection errored out")  # a test that ended while answers still came
    problems = [one for one in problems if not any(text in one for text in left)]
    assert problems == [], "\n".join(problems)
    assert not re.search(r"Traceback|Error:", (folder / "log.txt").read_text())
