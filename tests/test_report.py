"""The report as a reader meets it: in a browser, offline, on a phone and on a wide screen."""

import base64
import copy
import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK

import unmix
from unmix import CGVAE
from unmix.data.batches import split_rows
from unmix.report import figures
from unmix.report.parts import as_code

HOSTILE = "<script>document.title='broken'</script>"


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1440])
def test_report_in_a_browser(browser, fitted, tmp_path, width):
    path = fitted.report(tmp_path / "report.html")
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints, requests = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    figures = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt.length])")
    blocks = int(not fitted.audit().separated().all())
    assert len(figures) == 1 + blocks + 1 + 2 + 2 + 1 + 1 + 1
    assert all(size > 100 and words > 10 for size, words in figures)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for heading in (
        "latents do these data identify",
        "features each latent drives",
        "domain moves each latent",
        "do not show",
        "Settings and versions",
    ):
        assert page.get_by_role("heading", name=re.compile(heading)).count() == 1
    targets = page.locator("nav a").evaluate_all("links => links.map(a => document.querySelector(a.hash) !== null)")
    assert len(targets) >= 8
    assert all(targets)
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "table"])
def test_long_names_stay_on_a_narrow_page(browser, kind, frame, tmp_path):
    names = [letter * 90 for letter in "ab"]
    if kind == "images":
        x = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
        words = {"n_latents": 2, "hidden": (4,), "channels": 2, "max_steps": 1, "encoder_steps": 1, "batch_size": 8}
        y = np.repeat(names, 24)
        path = unmix.CGGAN(**words, verbose=0).fit(x, y).report(tmp_path / "r.html", x, y)
    else:
        path = CGVAE(**QUICK).fit(frame, np.resize(names, len(frame))).report(tmp_path / "r.html")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


@pytest.mark.slow
def test_downloads_are_the_tables(fitted, tmp_path):
    text = fitted.report(tmp_path / "report.html").read_text(encoding="utf-8")
    found = dict(re.findall(r'href="data:text/csv;base64,([^"]+)" download="([a-z]+)\.csv"', text))
    tables = {name: base64.b64decode(content).decode() for content, name in found.items()}
    assert set(tables) == {"mixing", "effects", "restarts", "history", "counterfactuals"}
    assert tables["mixing"].splitlines()[0] == "feature,z0,z1"
    first = float(tables["mixing"].splitlines()[1].split(",")[1])
    assert first == pytest.approx(fitted.mixing_[0, 0])


@pytest.mark.slow
def test_names_are_shown_and_not_run(browser, frame, labels, tmp_path):
    long = "a very long name of a feature, longer than any axis"
    hostile = frame.rename(columns={"x0": HOSTILE, "x1": "$a_{b$", "x2": long})
    model = CGVAE(**QUICK).fit(hostile, np.where(labels == "a", HOSTILE, labels))
    page = browser.new_page()
    page.goto(model.report(tmp_path / "report.html").as_uri())
    assert page.title() == "unmix report"
    assert HOSTILE in page.inner_text("body")
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one domain, one start", "many features", "tiny"])
def test_report_of_unusual_fits(case, frame, labels, tmp_path):
    if case == "one domain, one start":
        model = CGVAE(**{**QUICK, "n_restarts": 1}).fit(frame)
        expected = ["There is one domain", "There was a single start"]
    elif case == "many features":
        wide = np.random.default_rng(0).standard_normal((120, 130))
        model, expected = CGVAE(**QUICK).fit(wide, labels[:120]), ["130 features"]
    else:
        model = CGVAE(**QUICK, min_domain_rows=2).fit(frame.iloc[:20], labels[:20])
        expected = ["too few rows to hold any out"]
    text = model.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert all(words in text for words in expected)
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text).lower().replace("unanswered", "")


@pytest.mark.slow
def test_held_out_rows_on_which_a_feature_does_not_vary_wreck_no_mean(frame, labels, tmp_path):
    """A rare feature is there in training rows alone; R² of what does not vary has no lower limit."""
    rare = np.zeros(600)
    quick = {**QUICK, "n_restarts": 1, "max_epochs": 1}
    held_out = split_rows(np.searchsorted(["a", "b", "c"], labels), 0.1, 0)[1]
    rare[np.setdiff1d(np.arange(600), held_out)[::40]] = 1.0
    model = CGVAE(**quick).fit(frame.assign(rare=rare, nearly=rare + 1e-5 * frame["x0"]), labels)
    found = model.description_
    assert np.isnan(found.r2[5])
    assert found.r2[6] < -1e3
    shown = model.report(tmp_path / "r.html").read_text()
    kept = re.search(
        r"encode-decode reproduces (-?\d+)% of the features&#39; variance on held-out rows, without the (\d) features",
        shown,
    )
    assert int(kept[2]) == 1
    assert int(kept[1]) == pytest.approx(100 * np.maximum(found.r2[:5], -1).mean(), abs=5)
    again = unmix.load(model.save(tmp_path / "m"))
    assert again.audit().to_dict() == model.audit().to_dict()


@pytest.mark.slow
def test_a_start_that_failed_and_a_latent_that_differs_are_not_said_to_repeat(fitted, tmp_path):
    model = unmix.load(fitted.save(tmp_path / "m"))
    other = 1 - model.best_restart_
    model.restarts_.loc[other, "held_out_objective"] = np.inf
    shown = model.report(tmp_path / "r.html").read_text()
    assert "Every other start failed, so it is not known whether the result is reproducible" in shown
    assert "the kept latents" not in shown
    assert "Found again by the other starts" not in shown
    assert "There is no other start to compare with" in model.audit().finding("agreement").sentence
    model = unmix.load(tmp_path / "m")
    model.description_.agreement_latents[other] = [1.0, 0.94]
    assert "find z0 again, but not z1" in model.report(tmp_path / "r.html").read_text()
    model.description_.agreement_latents[other] = [0.94, 0.9]
    assert "do not find the kept latents again" in model.report(tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_a_loaded_model_reports_the_same(fitted, tmp_path):
    first = fitted.report(tmp_path / "a.html").read_text()
    again = unmix.load(fitted.save(tmp_path / "m")).report(tmp_path / "b.html").read_text()
    words = [re.sub(r"base64,[^\"]+", "", text) for text in (first, again)]
    assert words[0] == words[1]


def test_effects_have_intervals_that_hold_the_mean(fitted, frame, labels):
    effects = fitted.effects_frame()
    assert len(effects) == 3 * 2
    assert ((effects["location_low"] <= effects["location"]) & (effects["location"] <= effects["location_high"])).all()
    assert (effects["location_starts_low"] <= effects["location"] + 1e-9).all()
    assert isinstance(effects, pd.DataFrame)


def test_what_stands_between_backticks_is_code_and_all_is_escaped():
    assert as_code("more: `unmix <select>` & so") == "more: <code>unmix &lt;select&gt;</code> &amp; so"
    assert as_code("a lone ` <b>") == "a lone ` &lt;b&gt;"


@pytest.mark.slow
def test_a_remedy_that_is_the_same_for_all_latents_stands_there_once(fitted, tmp_path):
    model = copy.copy(fitted)
    audit = model.audit()
    table = audit.latents.assign(remedy="Ask `unmix select`, one and all.")
    model.audit = lambda: dataclasses.replace(audit, latents=table)
    assert "one and all" not in model.report(tmp_path / "r.html").read_text()
    table.loc[0, "remedy"] = "Something else."
    page = model.report(tmp_path / "r.html").read_text()
    assert "Something else." in page
    assert "Ask <code>unmix select</code>, one and all." in page


@pytest.mark.slow
def test_many_features_and_domains_are_capped_ordered_and_found(browser, tmp_path):
    """Maps show what latents drive most, figures the domains that move them most; all others are found by name."""
    rng = np.random.default_rng(0)
    n_domains, n_features = figures.MOST_DOMAINS + 5, figures.MOST_LABELLED + 10
    y = np.arange(6 * n_domains) % n_domains
    z = rng.normal(size=(len(y), 2)) + 3 * rng.normal(size=(n_domains, 2))[y]
    x = z @ rng.normal(size=(2, n_features)) + rng.normal(size=(len(y), n_features))
    names = [f"gene{k}" for k in range(n_features - 1)] + [HOSTILE]
    table, labels = pd.DataFrame(x, columns=names), [f"donor {k}" for k in y]
    words = {**QUICK, "n_restarts": 1, "max_epochs": 1, "min_domain_rows": 1, "validation_fraction": 0.34}
    model = CGVAE(**words).fit(table, labels)
    shown = figures.shown_features(model.mixing_)
    best = set(model.top_features(figures.MOST_LABELLED // 2)["feature"])
    assert {names[k] for k in shown} == best
    found = model.description_
    own = figures.shown_domains(found, 0)
    moved = np.abs(found.location[:, 0]) + np.abs(np.log(found.spread[:, 0]))
    assert len(own) == figures.MOST_DOMAINS
    assert moved[own].min() >= np.delete(moved, own).max()
    assert (np.diff(found.location[own, 0]) <= 0).all()
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(model.report(tmp_path / "report.html").as_uri())
    assert page.title() == "unmix report"
    for field, asked, expected, columns in (
        ("find-feature", "GENE77", ["gene77"], 4),
        ("find-feature", "<script", [HOSTILE], 4),
        ("find-domain", "donor 44", ["donor 44"], 5),
        ("find-domain", "nobody", [], 0),
    ):
        page.fill(f"#{field}", asked)
        rows = page.locator(f"#{field}-table tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        assert [row[0] for row in rows] == expected
        assert all(len(row) == columns for row in rows)
    page.fill("#find-domain", "donor")
    assert page.locator("#find-domain-table tbody tr").count() == 20
    assert page.inner_text("#find-domain-more") == "20 of 45 are shown."
    page.fill("#find-feature", "gene7")
    row = page.locator("#find-feature-table tbody tr").first.locator("td").all_inner_texts()
    mixing, signed = model.mixing_frame().loc[row[0]], model.mixing_frame(signed=True).loc[row[0]]
    assert [float(cell) for cell in row[1:3]] == pytest.approx((np.sign(signed) * mixing).to_list(), abs=0.006)
    assert complaints == []
    page.close()
