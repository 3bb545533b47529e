"""The live page in a real Chromium, served by real gateways: what people click and see, and what must not happen."""

from __future__ import annotations

import gzip
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from gateway.call import ToolCall, Usage
from gateway.recorder.ledger import Ledger
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway, free_port
from gateway.testing.records import call_record
from tests.e2e.watchers import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: the live page is not tested")

AXE = gzip.decompress((Path(__file__).parent / "vendor" / "axe-4.14.1.min.js.gz").read_bytes()).decode()
SECONDS = 20
MS = SECONDS * 1000
TOKEN = "a-token-of-twenty-letters"
HOSTILE = (
    "<img src=x onerror=window.owned=1>",
    "<script>window.owned=1</script>",
    '"><svg onload=window.owned=1>',
    "javascript:window.owned=1",
    "{{constructor.constructor('window.owned=1')()}}",
    "ends\u202ehere\u2028line",
    "%2e%2e/..;?#&=",
)
LONG = "long-" + "z" * 150
VIEWS = ("", "runs", "agents", "models", "budgets", "breakers")


def upstreams(url: str) -> dict[str, Any]:
    return {"openai": {"dialect": "openai", "url": url, "provider": "openai"}}


def call(gate: RunningGateway, run: str, agent: str = "bot") -> int:
    """A chat call of a run; its status."""
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": run}]}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer k"}
    url = f"{gate.url}/run/{run}/agent/{agent}/v1/chat/completions"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def filled(gate: RunningGateway, records: Sequence[Any]) -> RunningGateway:
    """A ledger that is there before the gateway is."""
    gate.state.mkdir(parents=True)
    ledger = Ledger(gate.state / "ledger.sqlite")
    ledger.open()
    ledger.apply(records, {})
    ledger.close()
    return gate


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Watched:
    """A page, and everything about it that must not happen."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        self.base, self.asked, self.faults = base, [], []  # type: ignore[var-annotated]
        self.context = browser.new_context(viewport={"width": 1300, "height": 850}, **options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(MS)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("console", self._said)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(message.text)  # a violation of the policy is one

    def go(self, path: str = "") -> Page:
        self.page.goto(f"{self.base}/#/{path}")
        return self.page

    def close(self) -> None:
        """Holds what must hold of every page."""
        owned = self.page.evaluate("window.owned")
        self.context.close()
        assert owned is None
        assert self.faults == []
        assert [url for url in self.asked if not url.startswith(self.base + "/")] == []
        assert not any(TOKEN in url for url in self.asked)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Callable[..., Watched]]:
    pages: list[Watched] = []

    def make(gate: RunningGateway, **options: Any) -> Watched:
        pages.append(Watched(browser, gate.admin_url, **options))
        return pages[-1]

    yield make
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def fake_provider() -> Iterator[FakeUpstream]:
    with FakeUpstream(3) as running:
        yield running


@pytest.fixture(scope="module")
def gate(fake_provider: FakeUpstream) -> Iterator[RunningGateway]:
    budgets = [{"scope": "global", "usd": 5, "per": "day"}]
    with RunningGateway(upstreams(fake_provider.url), runs={"budget_usd": 1.5}, budgets=budgets) as running:
        for run in ("alpha-1", "alpha-2", "beta-1"):
            assert call(running, run, "planner" if run.startswith("a") else "coder") == 200
        running.calls(3)
        yield running


@pytest.fixture(scope="module")
def empty_gate(fake_provider: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(fake_provider.url)) as running:
        yield running


@pytest.fixture(scope="module")
def full_gate(fake_provider: FakeUpstream) -> Iterator[RunningGateway]:
    """10,000 runs; runs with sub-agents, tools and all kinds of ends; and names nobody should have."""
    now = time.time_ns()
    many = [
        call_record(f"m{n:05d}", now - 7_200 * 10**9 + n * 10**8, run_id=f"run-{n:05d}", agent=f"agent-{n % 9}")
        for n in range(10_000)
    ]
    at = now - 600 * 10**9
    tools = (
        ToolCall("t1", "search", at + 10**9, 4 * 10**8, False),
        ToolCall("t2", "write", at + 10**9, 10**8, True, is_error=True),
    )
    refused = {"outcome": "refused", "status": 402, "error_code": "run_stopped", "usage": None, "cost": None}
    loop = {"loop": "cycle", "loop_action": "warn"}

    def lead(id: str, step: int, after: int, **facts: Any) -> Any:
        return call_record(id, at + after * 10**9, **{"run_id": "whole", "agent": "lead", "step": step, **facts})

    whole = [
        lead("w1", 1, 0, cost=3 * 10**10),
        lead("w2", 2, 2, tools=tools, cache="exact", saved=10**9),
        lead("w3", 1, 3, agent="helper", parent_agent="lead", notes=loop),
        lead("w4", 3, 4, budget="refused", error_message="it goes in circles", **refused),
    ]
    tapered = {"run_id": "tapered", "budget": "tapered", "notes": {"taper": "0.5 of run:tapered"}}
    whole.append(call_record("t1", at, **tapered))
    bad = []
    for n, name in enumerate(HOSTILE):
        named = dict.fromkeys(("agent", "tenant", "model_requested", "model_used", "error_message"), name)
        facts = {"run_id": f"hostile-{n} {name}", "notes": {"taper": name}, "usage": Usage(5, 5), "cost": 10**12}
        bad.append(call_record(f"h{n}", now - 300 * 10**9 + n, **named, **facts))
    names = {name: f"{name}-" + "x" * 120 for name in ("agent", "tenant", "model_requested", "model_used")}
    long = [call_record("l0", at, run_id=LONG, cost=10**12, **names)]
    deep = [
        call_record(
            f"d{n}", at + n * 10**9, run_id="deep", agent=f"level-{n}", parent_agent=f"level-{n - 1}" if n else ""
        )
        for n in range(12)
    ]
    gate = filled(RunningGateway(upstreams(fake_provider.url)), [*many, *whole, *bad, *long, *deep])
    with gate as running:
        yield running


# -- click paths --------------------------------------------------------------------------------------------------


def test_from_the_overview_to_a_call(gate, watched):
    page = watched(gate).go()
    expect(page.locator(".tile").nth(1).locator(".value")).to_contain_text("$")
    expect(page.get_by_role("status").first).to_have_text("live")
    page.get_by_role("navigation").get_by_text("Runs").click()
    expect(page.locator("a.row")).to_have_count(3)
    page.get_by_role("searchbox").fill("ALPHA-2")
    expect(page.locator("a.row")).to_have_count(1)
    assert page.url.endswith("#/runs?search=ALPHA-2")
    page.locator("a.row").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("alpha-2")
    (known,) = [one for one in gate.calls(3) if one["run_id"] == "alpha-2"]
    expect(page.locator(".tile", has_text="Calls").locator(".value")).to_have_text("1")
    page.locator("button.span").click()
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text(known["id"])
    expect(sheet).to_contain_text(f"{known['usage']['input_tokens']} in")
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("ALPHA-2")


def test_what_it_shows_is_what_the_api_says(gate, watched):
    page = watched(gate).go("agents")
    for name in ("planner", "coder"):
        (spent,) = [one for one in gate.get("/api/spenders", by="agent")["spenders"] if one["name"] == name]
        row = page.get_by_role("row").filter(has_text=name)
        expect(row.get_by_role("cell").nth(3)).to_have_text(str(spent["calls"]))
    page = watched(gate).go("budgets")
    gate.until(lambda: gate.get("/api/budgets", scope="global")["budgets"], bool)
    row = page.get_by_role("row").filter(has_text="all calls")
    expect(row).to_contain_text("$5.00")
    expect(row.get_by_role("meter")).to_have_attribute("aria-valuemax", "100")
    page.goto(f"{gate.admin_url}/#/nothing")
    expect(page.get_by_text("There is nothing here.")).to_be_visible()


def test_new_calls_show_by_themselves(gate, watched):
    page = watched(gate).go("runs")
    expect(page.locator("a.row").first).to_be_visible()
    before = page.evaluate("performance.timeOrigin")
    assert call(gate, "arrived-later") == 200
    row = page.locator("a.row", has_text="arrived-later")
    expect(row).to_be_visible(timeout=MS)
    assert call(gate, "arrived-later") == 200
    expect(row.locator(".num").first).to_have_text("2", timeout=MS)
    row.click()
    calls = page.locator(".tile", has_text="Calls").locator(".value")
    expect(calls).to_have_text("2")
    assert call(gate, "arrived-later") == 200
    expect(calls).to_have_text("3", timeout=MS)
    assert page.evaluate("performance.timeOrigin") == before, "without loading anew"


def test_what_came_before_anybody_listened_shows_too(gate, watched):
    seen = watched(gate)

    def later(route):
        assert call(gate, "in-between") == 200
        gate.until(lambda: gate.status("/api/runs/in-between"), lambda status: status == 200)
        route.continue_()

    seen.page.route("**/api/events", later)
    page = seen.go("runs")
    expect(page.locator("a.row", has_text="in-between")).to_be_visible(timeout=MS)


def test_a_run_is_stopped_and_let_go_on(gate, watched):
    assert call(gate, "to-stop") == 200
    gate.until(lambda: gate.status("/api/runs/to-stop"), lambda status: status == 200)
    page = watched(gate).go("run/to-stop")
    page.get_by_role("button", name="Stop run").click()
    page.get_by_label("Reason").fill("it burns money")
    page.get_by_role("button", name="Cancel").click()
    assert gate.get("/api/controls")["stopped"] == [], "called off"
    page.get_by_role("button", name="Stop run").click()
    page.get_by_label("Reason").fill("it burns money")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".title .badge", has_text="stopped")).to_be_visible()
    (stop,) = gate.get("/api/controls")["stopped"]
    assert (stop["value"], stop["reason"], stop["by"]) == ("to-stop", "it burns money", "live page")
    assert call(gate, "to-stop") == 402
    expect(page.get_by_text("run stopped").first).to_be_visible(timeout=MS)
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.get_by_role("button", name="Stop run")).to_be_visible()
    assert call(gate, "to-stop") == 200


def test_a_budget_is_raised(gate, watched):
    assert call(gate, "to-raise") == 200
    gate.until(lambda: gate.status("/api/runs/to-raise"), lambda status: status == 200)
    page = watched(gate).go("run/to-raise")
    expect(page.locator(".budget")).to_contain_text("of $1.50")
    page.get_by_role("button", name="Raise budget").click()
    field = page.get_by_label("Budget in USD")
    field.fill("99000000")
    page.get_by_role("button", name="Set the budget").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).not_to_be_empty()  # the API said no, and the page says why
    field.fill("7.5")
    page.get_by_role("button", name="Set the budget").click()
    expect(page.get_by_text("The budget of the run is $7.50.")).to_be_visible()
    assert call(gate, "to-raise") == 200
    expect(page.locator(".budget")).to_contain_text("of $7.50", timeout=MS)


def test_a_breaker_is_held_and_let_go(gate, watched):
    page = watched(gate).go("breakers")
    expect(page.get_by_text("No breaker has ever opened")).to_be_visible()
    page.get_by_role("button", name="Hold one open").click()
    page.get_by_label("Upstream").fill("openai/gpt-nobody")
    page.get_by_role("button", name="Hold open", exact=True).click()
    row = page.get_by_role("row").filter(has_text="openai/gpt-nobody")
    expect(row).to_contain_text("open by hand")
    (one,) = gate.get("/api/breakers")["breakers"]
    assert one["forced"] == "open"
    overview = watched(gate).go()
    expect(overview.locator(".conditions")).to_contain_text("openai/gpt-nobody")
    row.get_by_role("button", name="Let go").click()
    page.get_by_role("button", name="Let go", exact=True).last.click()
    expect(page.get_by_text("No breaker has ever opened")).to_be_visible()
    expect(overview.locator("main")).not_to_contain_text("openai/gpt-nobody", timeout=MS)


@pytest.fixture(scope="module")
def month_gate(fake_provider: FakeUpstream) -> Iterator[RunningGateway]:
    """Agents and models of today, of some days ago, and of weeks ago."""
    now, hour, day = time.time_ns(), 3600 * 10**9, 86_400 * 10**9
    ages = {"today": 0, "yesterday": 23 * hour, "days-ago": 5 * day, "weeks-ago": 20 * day, "long-ago": 45 * day}
    records = [
        call_record(f"{name}-{n}", now - age - n * 10**6, agent=f"of-{name}", model_used=f"model-{name}", run_id=name)
        for name, age in ages.items()
        for n in range(3)
    ]
    with filled(RunningGateway(upstreams(fake_provider.url)), records) as running:
        yield running


@pytest.mark.parametrize(("view", "prefix"), [("agents", "of-"), ("models", "model-")])
def test_agents_and_models_over_days(month_gate, watched, view, prefix):
    page = watched(month_gate).go(view)
    names = page.locator("tbody a.mono")
    expect(names.filter(has_text=f"{prefix}today")).to_be_visible()
    expect(page.get_by_role("button", name="Today", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(names.filter(has_text="days-ago")).to_have_count(0)
    for button, known in (
        ("24 hours", ["today", "yesterday"]),
        ("30 days", ["today", "yesterday", "days-ago", "weeks-ago"]),
        ("7 days", ["today", "yesterday", "days-ago"]),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.get_by_role("button", name=button, exact=True)).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("button", pressed=True)).to_have_count(1)
        expect(names).to_have_count(len(known))
        for name in known:
            expect(names.filter(has_text=f"{prefix}{name}")).to_be_visible()
    assert page.url.endswith(f"#/{view}?range=7d")
    page.reload()
    expect(names).to_have_count(3)
    expect(page.get_by_role("button", name="7 days")).to_have_attribute("aria-pressed", "true")
    page.goto(f"{month_gate.admin_url}/#/{view}?range=nonsense")
    expect(page.get_by_role("button", name="Today", exact=True)).to_have_attribute("aria-pressed", "true")


def test_a_new_call_is_in_every_range(month_gate, watched):
    page = watched(month_gate).go("agents?range=30d")
    row = page.get_by_role("row").filter(has_text="fresh")
    expect(page.get_by_role("row").filter(has_text="of-weeks-ago")).to_be_visible()
    assert call(month_gate, "fresh-run", "fresh") == 200
    expect(row.get_by_role("cell").nth(3)).to_have_text("1", timeout=MS)


def test_what_is_still_being_read_is_said_and_comes(month_gate, watched):
    page = watched(month_gate).go("models")
    answers: list[bool] = []

    def half(route: Any) -> None:
        found = route.fetch().json()
        answers.append(True)
        if len(answers) < 3:
            found |= {"complete": False, "spenders": found["spenders"][:1]}
        route.fulfill(json=found)

    page.route("**/api/spenders*range=30d*", half)
    page.get_by_role("button", name="30 days").click()
    expect(page.get_by_role("status").filter(has_text="are being read")).to_be_visible()
    expect(page.locator("tbody a.mono").filter(has_text="model-weeks-ago")).to_be_visible(timeout=MS)
    expect(page.get_by_role("status").filter(has_text="are being read")).to_have_count(0)


def test_an_agent_is_stopped(gate, watched):
    assert call(gate, "one-of-many", "swarm") == 200
    gate.until(lambda: gate.status("/api/runs/one-of-many"), lambda status: status == 200)
    page = watched(gate).go("agents")
    page.get_by_role("button", name="Stop swarm").click()
    page.get_by_role("button", name="Stop", exact=True).last.click()
    expect(page.get_by_role("button", name="Resume swarm")).to_be_visible()
    assert call(gate, "another", "swarm") == 402
    page.get_by_role("button", name="Resume swarm").click()
    page.get_by_role("button", name="Resume", exact=True).last.click()
    expect(page.get_by_role("button", name="Stop swarm")).to_be_visible()
    assert call(gate, "another", "swarm") == 200


def test_a_run_opens_as_a_tree_and_a_waterfall(full_gate, watched):
    page = watched(full_gate).go("run/whole")
    expect(page.locator(".tree .tree .node")).to_contain_text("helper")
    groups = page.locator(".span.group")
    wanted = ("lead · step 1", "lead · step 2", "helper · step 1", "lead · step 3")
    expect(groups).to_contain_text(wanted)
    expect(page.locator(".span", has_text="write").locator(".badge")).to_have_text("failed")
    expect(page.get_by_text("cache: exact")).to_be_visible()
    expect(page.locator(".track .bar.cached")).to_have_count(1)
    expect(page.locator(".track .bar.tool")).to_have_count(1)
    expect(page.get_by_label("Signals")).to_contain_text("it goes in circles")
    expect(page.get_by_label("Signals")).to_contain_text("cycle")
    places = page.locator(".track .bar").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().left)")
    assert len({round(place) for place in places}) > 3, "bars stand where they began"


# -- keys and themes ----------------------------------------------------------------------------------------------


def test_everything_can_be_done_with_keys(gate, watched):
    page = watched(gate).go()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.locator("a.row").first).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("beta")
    expect(page.locator("a.row")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")  # out of the search: first to the order, or into the list
    for _ in range(20):
        if page.evaluate("document.activeElement.matches('a.row')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("beta-1")


def test_the_focus_stays_while_figures_change(gate, watched):
    assert call(gate, "focus-1", "steady") == 200
    page = watched(gate).go("agents")
    row = page.get_by_role("row").filter(has_text="steady")
    button = page.get_by_role("button", name="Stop steady")
    expect(row.get_by_role("cell").nth(3)).to_have_text("1", timeout=MS)
    button.focus()
    assert call(gate, "focus-1", "steady") == 200
    expect(row.get_by_role("cell").nth(3)).to_have_text("2", timeout=MS)
    expect(button).to_be_focused()


def test_what_was_scrolled_stays_while_conditions_change(fake_provider, watched):
    with RunningGateway(upstreams(fake_provider.url)) as gate:
        for n in range(12):
            gate.post("/api/breakers", {"name": f"upstream-{n}", "state": "open"})
        page = watched(gate).go()
        box = page.locator(".conditions")
        expect(box.locator("li")).to_have_count(12)
        box.evaluate("list => { list.scrollTop = 90; }")
        gate.post("/api/breakers", {"name": "upstream-12", "state": "open"})
        expect(box.locator("li")).to_have_count(13, timeout=MS)
        assert box.evaluate("list => list.scrollTop") == 90


def test_the_theme_follows_the_system_until_it_is_chosen(gate, watched):
    page = watched(gate, color_scheme="dark").go()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert light != dark
    for wanted, colour in (("light", light), ("dark", dark)):
        page.get_by_role("button", name="Theme").click()
        expect(page.get_by_role("button", name=f"Theme: {wanted}")).to_be_visible()
        assert page.evaluate(ground) == colour
    page.reload()
    assert page.evaluate(ground) == dark, "the choice is kept"


# -- states -------------------------------------------------------------------------------------------------------


def test_nothing_yet(empty_gate, watched):
    page = watched(empty_gate).go()
    expect(page.get_by_text("All is well")).to_be_visible()
    expect(page.get_by_text(f"export OPENAI_BASE_URL={empty_gate.url}/v1")).to_be_visible()
    texts = {
        "runs": "No runs yet",
        "agents": "No calls today",
        "models": "No calls today",
        "budgets": "No virtual keys",
    }
    for view, text in {**texts, "breakers": "No breaker has ever opened"}.items():
        page.goto(f"{empty_gate.admin_url}/#/{view}")
        expect(page.get_by_text(text)).to_be_visible()
    page.goto(f"{empty_gate.admin_url}/#/run/never-was")
    expect(page.get_by_text("There is no such run")).to_be_visible()


def test_a_gateway_that_is_gone_and_comes_back(fake_provider, watched):
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("listen", "admin")}
    gate = RunningGateway(upstreams(fake_provider.url), **ports)
    try:
        gate.start()
        assert call(gate, "before") == 200
        gate.calls(1)
        page = watched(gate).go("runs")
        expect(page.locator("a.row")).to_have_count(1)
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        gate.stop()
        expect(page.get_by_role("alert")).to_contain_text("does not answer. What is shown is from", timeout=MS)
        expect(page.locator("a.row")).to_have_count(1)  # what was known stays
        gate.start()
        expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=MS)
        expect(page.get_by_role("alert")).to_be_hidden()
        assert call(gate, "after") == 200
        expect(page.locator("a.row")).to_have_count(2, timeout=MS)
    finally:
        gate.close()


def test_what_cannot_be_asked_is_said_and_comes_back(gate, watched):
    page = watched(gate).go("agents")
    row = page.get_by_role("row").filter(has_text="planner")
    expect(row).to_be_visible()
    problem = {"code": "ledger_unavailable", "detail": "the ledger is away"}
    page.route("**/api/spenders*", lambda route: route.fulfill(status=503, json=problem))
    assert call(gate, "while-away", "somebody") == 200
    expect(page.get_by_text("the ledger is away")).to_be_visible(timeout=MS)
    page.unroute("**/api/spenders*")
    assert call(gate, "while-away", "somebody") == 200
    expect(row).to_be_visible(timeout=MS)


def test_without_the_token_nothing_is_shown(fake_provider, watched):
    gate = RunningGateway(upstreams(fake_provider.url), admin_token=TOKEN)
    with gate:
        assert call(gate, "secret-run") == 200
        page = watched(gate).go("runs")
        field = page.get_by_role("textbox", name="Token")
        field.fill("not the token")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_text("That was not the token.")).to_be_visible()
        assert "secret-run" not in page.content()
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        expect(page.locator("a.row", has_text="secret-run")).to_be_visible(timeout=MS)
        expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=MS)
        assert page.evaluate("JSON.stringify(localStorage)").count(TOKEN) == 0
        page.reload()
        expect(page.locator("a.row", has_text="secret-run")).to_be_visible()  # for this tab it is kept


def test_who_has_no_token_is_asked_again_only_by_what_they_do(fake_provider, watched):
    with RunningGateway(upstreams(fake_provider.url), admin_token=TOKEN) as gate:
        page = watched(gate).go()
        field = page.get_by_role("textbox", name="Token")
        expect(field).to_be_visible()
        tried = []
        page.on("request", lambda request: tried.append(request) if request.url.endswith("/api/events") else None)
        page.keyboard.press("Escape")
        until(lambda: page.wait_for_timeout(50), lambda _: len(tried) >= 2)
        expect(field).to_have_count(0)
        expect(page.get_by_role("alert")).to_contain_text("The gateway says")
        page.get_by_role("link", name="Runs", exact=True).click()
        expect(field).to_be_visible()


def test_what_is_refused_is_said_where_it_was_asked_for(gate, watched):
    page = watched(gate).go("run/alpha-1")
    problem = {"code": "controls_unavailable", "detail": "It cannot be written now."}
    page.route("**/kill", lambda route: route.fulfill(status=503, json=problem))
    page.get_by_role("button", name="Stop run").click()
    button = page.get_by_role("button", name="Stop", exact=True)
    button.click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("It cannot be written now.")
    expect(button).to_be_focused()
    page.unroute("**/kill")
    page.keyboard.press("Escape")
    assert gate.get("/api/controls")["stopped"] == []


# -- names nobody should have, and many runs ----------------------------------------------------------------------


def test_hostile_names_are_text(full_gate, watched):
    page = watched(full_gate).go()
    for n, name in enumerate(HOSTILE):
        page.goto(f"{full_gate.admin_url}/#/runs?order=cost")
        row = page.locator("a.row", has_text=f"hostile-{n} ")
        expect(row).to_contain_text(name)
        row.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"hostile-{n} {name}")
        page.locator("button.span").first.click()
        expect(page.get_by_role("dialog")).to_contain_text(name)
        page.keyboard.press("Escape")
    for view in ("agents?range=24h", "models?range=24h", ""):  # the day may be young
        page.goto(f"{full_gate.admin_url}/#/{view}")
        expect(page.get_by_text(HOSTILE[0]).first).to_be_visible()
    assert page.locator("main img, main script, main iframe").count() == 0


def test_ten_thousand_runs_stay_usable(full_gate, watched):
    page = watched(full_gate).go("runs")
    rows, box = page.locator("a.row"), page.locator(".list")
    expect(rows.first).to_be_visible()
    end = time.monotonic() + 90
    while "more" in page.locator(".title [role=status]").inner_text():
        assert time.monotonic() < end
        box.evaluate("list => { list.scrollTop = list.scrollHeight; }")
        page.wait_for_timeout(20)
    expect(page.locator(".title [role=status]")).to_have_text("10,011")
    assert rows.count() < 80, "only what is in sight is in the document"
    box.evaluate("list => { list.scrollTop = list.scrollHeight; }")
    expect(page.locator("a.row", has_text="run-00000")).to_be_visible()
    page.locator("a.row", has_text="run-00000").focus()
    for key, wanted in (("ArrowUp", "run-00001"), ("Home", "hostile-6"), ("End", "run-00000")):
        page.keyboard.press(key)
        expect(page.locator("a.row:focus")).to_contain_text(wanted)
    page.get_by_role("searchbox").fill("run-0423")
    expect(rows).to_have_count(10)


def test_scrolling_stays_where_it_is_while_runs_come_in(full_gate, watched):
    page = watched(full_gate).go("runs")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    box = page.locator(".list")
    expect(page.locator("a.row[data-n='0']")).to_be_visible()  # an empty list cannot be scrolled
    box.evaluate("list => { list.scrollTop = 2000; }")
    seen = page.locator("a.row[data-n='55']")
    expect(seen).to_be_visible()
    name, top = seen.inner_text(), seen.bounding_box()["y"]
    assert call(full_gate, "in-between") == 200
    again = page.locator("a.row[data-n='56']")
    expect(again).to_contain_text(name.split("\n")[1], timeout=MS)
    assert (again.inner_text(), again.bounding_box()["y"]) == (name, top)


# -- for everybody ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [*VIEWS, "run/whole"])
def test_axe_finds_nothing(full_gate, watched, view, scheme):
    page = watched(full_gate, color_scheme=scheme, bypass_csp=True).go(view)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    page.wait_for_load_state("load")
    expect(page.locator("main .card").first).to_be_visible()
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})")
    assert found["passes"], "it ran"
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found["violations"]] == []


def test_axe_finds_nothing_in_dialogs(gate, watched):
    page = watched(gate, bypass_csp=True).go("run/alpha-1")
    page.get_by_role("button", name="Raise budget").click()
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document)")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


def test_axe_finds_nothing_in_a_small_window(gate, watched):
    watching = watched(gate, bypass_csp=True)
    watching.page.set_viewport_size({"width": 320, "height": 800})
    page = watching.go()
    expect(page.locator("main .card").first).to_be_visible()
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document)")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


@pytest.mark.parametrize("width", [320, 420])
def test_it_fits_a_small_window(full_gate, watched, width):
    page = watched(full_gate).go()
    page.set_viewport_size({"width": width, "height": 800})
    for view in (*VIEWS, "run/whole", "run/deep", f"run/{LONG}"):
        page.goto(f"{full_gate.admin_url}/#/{view}")
        expect(page.locator("main .card").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
    values = page.locator(".tile .value").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
    assert max(values) <= 0, "what it cost is not cut"


def test_a_small_window_shows_when_things_were_and_what_they_cost(full_gate, watched):
    page = watched(full_gate).go("run/whole")
    page.set_viewport_size({"width": 390, "height": 800})
    tracks = page.locator(".waterfall .track")
    expect(tracks.first).to_be_visible()
    assert min(tracks.evaluate_all("all => all.map(one => one.clientWidth)")) > 90
    shown = page.locator(".axis .track span:visible").evaluate_all("all => all.map(one => one.getBoundingClientRect())")
    assert len(shown) == 2
    assert shown[0]["right"] <= shown[1]["left"], "times stand beside each other"
    for width in (390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{full_gate.admin_url}/#/runs")
        costs = page.locator(".space .row > .num:not(.opt)")
        expect(costs.first).to_be_visible()
        assert max(costs.evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")) <= 0, width


def test_what_was_decided_is_said_once(full_gate, watched):
    page = watched(full_gate).go("run/tapered")
    expect(page.locator(".waterfall .badge", has_text="tapered")).to_have_count(1)


def test_figures_stand_in_full_rows(gate, watched):
    page = watched(gate).go()
    expect(page.locator(".tile")).to_have_count(6)
    for width in (390, 800, 1024, 1300):
        page.set_viewport_size({"width": width, "height": 800})
        tops = page.locator(".tile").evaluate_all("all => all.map(one => one.offsetTop)")
        assert len({tops.count(top) for top in tops}) == 1, width


def test_little_is_not_shown_as_nothing(gate, watched):
    page = watched(gate).go()
    usd = page.evaluate("import('/page/format.js').then(({ usd }) => [0, 4.95e-6, 5e-6, 0.5, null].map(usd))")
    assert usd == ["$0.00", "< $0.00001", "$0.00001", "$0.5000", "unknown"]


def test_a_day_ends_when_that_of_the_gateway_does(gate, watched):
    for zone, end in (("UTC", "midnight"), ("Asia/Kolkata", "05:30")):
        page = watched(gate, timezone_id=zone).go()
        page.locator(".tile", has_text="Today").filter(has_text=f" by {end}").first.wait_for()


def test_the_policy_would_stop_what_is_injected(gate, watched):
    watcher = watched(gate)
    page = watcher.go()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    page.evaluate("""() => {
        const script = Object.assign(document.createElement("script"), { type: "text/x" });
        const tries = [() => document.body.insertAdjacentHTML("beforeend", "<b id=in1>x</b>"),
            () => { document.body.innerHTML += "<b id=in2>x</b>"; },
            () => { script.text = "window.owned = 1"; document.body.append(script); },
            () => { document.body.setAttribute("onclick", "window.owned = 1"); document.body.click(); },
            () => { document.body.append(Object.assign(new Image(), { src: "http://192.0.2.1/pixel.png" })); }];
        for (const one of tries) try { one(); } catch { /* as it should be */ }
    }""")
    expect(page.locator("#in1, #in2")).to_have_count(0)
    said = " ".join(watcher.faults)
    assert "TrustedHTML" in said or "trusted" in said.lower()
    assert "192.0.2.1" in said, "nothing is fetched from elsewhere"
    watcher.faults.clear()
    watcher.asked = [url for url in watcher.asked if "192.0.2.1" not in url]  # asked for, and refused by the browser
