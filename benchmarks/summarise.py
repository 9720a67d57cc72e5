"""Write ``docs/results.md``, its figures, the README's results and the tables of ``docs/speed.md``.

python benchmarks/summarise.py
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from audit_fits import summarise as audit_counts
from scipy import stats

from unmix.bench import figures, summary
from unmix.bench.presets import PRESETS
from unmix.bench.run import ROWS, read_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
PICTURES = ROOT / "docs/figures"
README_MARKS = "<!-- results -->\n", "<!-- end of results -->\n"
WORDS = {
    "targets": "Supports that the theory guarantees with the domains there are.",
    "claim": "Domains × density: where do changes, sparsity, both and the baselines recover the latents?",
    "violation": "One assumption broken at a time: weak extra edges, dependent latents, noise, sources not Gaussian.",
    "penalty": "The penalty at 32 rows of each second batch of 128, against all, 8 rows, each batch and each fourth.",
    "quick": "The smallest study.",
}
_SIZE_WORDS = ("latents", "features", "domains")
_SPARSITY_WORDS = {
    ("log", 0.5): "the default penalty",
    ("l1", 0.2): "L1 at weight 0.2",
    ("l1", 0.02): "a tenth of that",
    ("l1", 0.0): "none",
}
COLUMNS = ["method", "seeds", "domains_needed", "mcc", "low", "high", "worst_mcc", "support_f1", "agreement", "seconds"]

GOOD, MARGIN = 0.97, 0.01
ON_ROWS = (
    "\n## CG-GAN on rows\n\n`python benchmarks/cggan_vectors.py`: four latents of which two never change, eight "
    "features, six domains. Content R²: of the unchanging true latents from those found to be content, held out; "
    "`domain_accuracy`: of a classifier that reads the domain from them; `n_style`: latents found to be style, "
    "two in truth (iMSDA is told so). How far the gradient penalty falls, and form and weight of the Jacobian term, "
    "were chosen on other seeds. `seconds` are of fits that shared two cores with others, those without the "
    "Jacobian term on a machine several times as fast. Means over the seeds that were run:\n"
)
IN_FEW_DOMAINS = (
    "\n## CG-GAN in two domains: what the Jacobian term does\n\n"
    "`python benchmarks/cggan_vectors.py --problem few-domains --seeds 585 586 587`: one latent of four never "
    "changes, there are two domains, and the support is one that the theory guarantees with so few. Changes alone "
    "leave the three style latents open; the Jacobian term has to tell them apart. Their number is told, without a "
    "mask. `entries_below_0.1` is to be read beside `true_zeros`. Means over the seeds that were run:\n"
)
DIGITS = (
    "\n## Two-colour digits\n\n`python benchmarks/translation.py`: held-out digits translated to the three other "
    "pairs of colours. `content`, `style`: share of the translations that keep their digit and reach the colours, "
    "as judges see it, with 95 % intervals over images; `real_content`: what the judge reads of real held-out "
    "digits. Means over seeds, and how many more digits all terms keep than a method without some of them, paired "
    "over seeds, with the 95 % interval of Student's t:\n"
)
ALL_LAYERS = (
    "\n## Two-colour digits, style on every layer\n\n`python benchmarks/translation.py --data digits-all-layers`: the "
    "same digits where style may change shapes, and not colours alone. One domain is dark on light, the others light "
    "on dark. Nothing in the data says which dark shape belongs to which light one, and many fits match wrong ones: "
    "half of all translations go to or from that domain, so their content is about a half. Another processor or seed "
    "decides which. So for domains that differ in colours alone, "
    '`modulation="colours"` is what keeps the digit, not the objective. Columns as above:\n'
)
LINEAR = (
    "PCA",
    "PCA + varimax",
    "FactorAnalysis",
    "FactorAnalysis + varimax",
    "FastICA",
    "joint diagonalization",
    "NMF",
)
REAL_WORDS = (
    "`python benchmarks/real.py`: defaults, the same held-out fifth of every domain for all methods. Variance kept on "
    "held-out rows; one-to-one rank correlation of the latents of several seeds, and of fits to halves of the rows; "
    "known factors: the best single latent (rank correlation, or AUROC), mean over the factors, against the linear "
    "method that is best on that table. Every number is in `benchmarks/results/real/summary.md`. The training course "
    "was chosen on kang pbmc, light tunnel and parkinson voice, the choice of the start on olive and weather too; the "
    "others were looked at. Sensors 128 and light tunnel model are simulated. Five seeds; halves: mean of two pairs."
)
EARLIER = (
    "\n\nMeasured with an earlier course of the training: no linear starts, each feature its own noise from the start, "
    "`sparsity=0.5`.\n"
)
NOT_ANEW = ("claim", "violation", "penalty", "quick")
SAME = ("cores", "load_before", "torch", "python", "repeats")
OTHERS = ("both", "joint diagonalization", "FastICA", "PCA")
OTHERS_WORDS = (
    "`python benchmarks/others.py`: data as the published generators of other groups draw them (`generators.py` names "
    "each, with its differences), default fits with the true number of latents. MCC over all rows, mean over data "
    "seeds; many of these problems are not identifiable, or not by this model. The noise at which training begins was "
    "chosen with `heavy-tails`, `heavy-tails-mild`, `invariant-linear`, `interventions-paired`, `interventions-graph` "
    "and `tcl-lrelu` in view."
)


def main() -> None:
    parts = [
        "# Results\n\nWritten by `python benchmarks/summarise.py` from the tables in `benchmarks/results/`. "
        "Every method is fitted to 8,000 rows and scored on 2,000 fresh ones, with its default settings (iVAE: 100 "
        "epochs) and its chosen start. Seconds are wall time of one thread, with two fits at once on two cores and at "
        "times other work beside them; studies ran on different machines, so compare seconds within one. Intervals are "
        "Student's t over data seeds, 95 %. MCC: mean correlation of matched latents with the true ones, the match "
        "chosen on one half of the rows and scored on the other.\n"
    ]
    for name, words in WORDS.items():
        path = RESULTS / name / ROWS
        if path.exists():
            parts += _study(name, words + EARLIER * (name in NOT_ANEW), pd.DataFrame(read_rows(path).values()))
    parts += ["\n## Real tables\n\n" + REAL_WORDS, _table(_real_tables())]
    counted, table = _others(RESULTS / "others" / ROWS)
    parts += [f"\n## Data of other groups' generators\n\n{OTHERS_WORDS} {counted}\n", _table(table)]
    sachs = RESULTS / "sachs.csv"
    if sachs.exists():
        parts += [
            "\n## Sachs protein signalling\n\n"
            "`python benchmarks/sachs.py`: four latents, nine conditions. `agreement`: mean over all pairs of starts, "
            "held out; `targets_hit`: interventions that move the latent which drives their target most, of seven "
            "(chance: 1 in 4 each)." + EARLIER,
            _table(pd.read_csv(sachs)),
        ]
    parts += _audit_fits(RESULTS / "audit_fits.jsonl") + _audit(RESULTS / "audit.csv")
    parts += _gan_on_vectors(RESULTS / "cggan_vectors.csv", ON_ROWS)
    parts += _gan_on_vectors(RESULTS / "cggan_few_domains.csv", IN_FEW_DOMAINS)
    parts += _digits(RESULTS / "digits.csv", DIGITS)
    parts += _digits(RESULTS / "digits_all_layers.csv", ALL_LAYERS) + _emoji(RESULTS / "emoji.csv")
    parts += _translators(RESULTS / "translators.csv") + _pairs(RESULTS / "pairs.csv")
    parts += _sprites(RESULTS / "sprites.csv")
    (ROOT / "docs/results.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    _update_readme(
        pd.DataFrame(read_rows(RESULTS / "targets" / ROWS).values()), pd.read_csv(sachs), RESULTS / "audit_fits.jsonl"
    )
    page = ROOT / "docs/speed.md"
    page.write_text(speed_page(page.read_text(encoding="utf-8"), RESULTS / "speed"), encoding="utf-8")


def _update_readme(targets: pd.DataFrame, sachs: pd.DataFrame, audit: Path) -> None:
    """Replace what stands between the marks."""
    sizes = ["n_latents", "n_features", "n_domains"]
    scores = summary.finished(targets).groupby([*sizes, "method"])["mcc"].agg(["mean", "min"])
    cells = (scores["mean"].map("{:.3f}".format) + " (" + scores["min"].map("{:.3f}".format) + ")").unstack()
    table = cells[list(summary.ABLATIONS)].reset_index().rename(columns=dict(zip(sizes, _SIZE_WORDS, strict=True)))
    margins = summary.margins(targets, [*sizes, "density"]).set_index(["against", "problems"])
    said = [
        f"{one.margin:.3f} [{one.low:.3f}, {one.high:.3f}] over {method} ({one.wins:.0f} of {one.pairs:.0f} won)"
        for method in summary.ABLATIONS[1:]
        for one in [margins.loc[(method, "all")]]
    ]
    own = sachs.groupby(["penalty", "sparsity"], sort=False)
    agreed = own["agreement"].mean().map("{:.2f}".format)
    names = [f"{agreed[key]} with {_SPARSITY_WORDS[key]}" for key in agreed.index]
    hits = own["targets_hit"].mean()
    seeds = targets["seed"].nunique()
    paragraphs = (
        f"Generated problems whose supports the theory guarantees, {seeds} data seeds, of which two were seen when the "
        "final weight of the penalty was chosen: mean correlation with the true latents, and the worst of the seeds.",
        f"Mean margin of both facts, paired over problems, with its 95 % interval: {', '.join(said)}.",
        f"Protein signalling (the demo's data), mean over {sachs['seed'].nunique()} seeds: the starts "
        f"agree at {', '.join(names)}. {hits.min():.1f} to {hits.max():.1f} of {sachs['targets'].max()} interventions "
        "move the latent that drives their known target; by chance it would be about two. That is weak evidence. "
        "(Measured with an earlier course of the training.)",
    )
    counted, _ = _others(RESULTS / "others" / ROWS)
    paragraphs += (
        "Data as the published generators of other groups draw them, fits with the true number of latents, mostly one "
        f"data seed, beside joint diagonalization, FastICA and PCA: {counted} Six of the problems were in view when "
        "the beginning of the training was chosen.",
    )
    if audit.exists():
        paragraphs = (*paragraphs, _fits_in_words(audit))
    before_table, *after_table = [textwrap.fill(paragraph, 128) for paragraph in paragraphs]
    real = [textwrap.fill("Real tables, and two simulated ones. " + REAL_WORDS, 128), _table(_real_tables())]
    text = "\n\n".join([*real, before_table, _table(table), *after_table]) + "\n"
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(README_MARKS[0])
    after = rest.split(README_MARKS[1])[1]
    readme.write_text(before + README_MARKS[0] + text + README_MARKS[1] + after, encoding="utf-8")


def _others(path: Path) -> tuple[str, pd.DataFrame]:
    """Counts in words, and the mean over the data seeds that CG-VAE was fitted to: every method on the same ones."""
    rows = pd.DataFrame(list(read_rows(path).values()))
    rows = rows[rows["error"].isna() & rows["method"].isin(OTHERS)]
    seeds = rows[rows["method"] == OTHERS[0]].groupby("problem")["seed"].agg(set)
    kept = [row.problem in seeds and row.seed in seeds[row.problem] for row in rows.itertuples()]
    means = rows[kept].pivot_table(index="problem", columns="method", values="mcc", sort=False)[list(OTHERS)]
    best = means[list(OTHERS[1:])].max(axis=1)
    above, below = int((means[OTHERS[0]] > best + 0.02).sum()), int((means[OTHERS[0]] < best - 0.02).sum())
    words = (
        f"CG-VAE is better than all three linear methods by more than 0.02 on {above} of {len(means)} problems, and "
        f"worse than the best of them by more than that on {below}."
    )
    sizes = rows.drop_duplicates("problem").set_index("problem")[["latents", "features", "domains"]]
    table = sizes.join(means.map("{:.3f}".format)).rename(columns={OTHERS[0]: "CG-VAE"})
    table["seeds"] = seeds.map(len)
    return words, table.loc[means.index].reset_index()


def _real_tables() -> pd.DataFrame:
    """One row a table and number of latents: CG-VAE beside linear methods."""
    rows = pd.DataFrame(list(read_rows(RESULTS / "real" / ROWS).values()))
    rows = rows[rows["error"].isna()]
    found = []
    for (name, n_latents), own in rows[rows["n_latents"] > 0].groupby(["table", "n_latents"]):
        if "CGVAE" not in set(own["method"]):
            continue

        def mean(part: str, column: str, method: str, own: pd.DataFrame = own) -> float:
            return float(own[(own["part"] == part) & (own["method"] == method)][column].mean())

        fits = own[(own["part"] == "fit") & own["factors"].notna()]
        scores = {
            method: fits[fits["method"] == method]["factors"]
            .map(lambda factors: sum(one["value"] for one in factors.values()) / max(len(factors), 1))
            .mean()
            for method in ("CGVAE", *LINEAR)
        }
        best = max(LINEAR, key=lambda method: scores[method] if scores[method] == scores[method] else -1.0)
        found.append(
            {
                "table": name.replace("_", " "),
                "latents": n_latents,
                "variance: PCA / unmix": _pair(mean("fit", "variance", "PCA"), mean("fit", "variance", "CGVAE")),
                "seeds: FastICA / unmix": _pair(*(mean("seeds", "agreement", m) for m in ("FastICA", "CGVAE"))),
                "halves: FastICA / unmix": _pair(*(mean("halves", "agreement", m) for m in ("FastICA", "CGVAE"))),
                "factors: best linear / unmix": f"{_pair(scores[best], scores['CGVAE'])} ({best})",
            }
        )
    return pd.DataFrame(found)


def _pair(first: float, second: float) -> str:
    return f"{first:.3f} / {second:.3f}"


def speed_page(text: str, folder: Path) -> str:
    """``text`` with what stands between the marks of each table replaced by that table, or by how to measure it."""

    def filled(mark: re.Match[str]) -> str:
        name = mark["name"]
        path = folder / f"{name}.csv"
        if path.exists():
            frame = pd.read_csv(path)
            same = [column for column in SAME if column in frame and frame[column].nunique() == 1]
            where = ", ".join(f"{column.replace('_', ' ')} {frame[column].iloc[0]}" for column in same)
            body = f"{_table(frame.drop(columns=same))}\n\nMeasured with {where}."
            if name == "convergence":
                body = f"{_table(_time_to_answer(frame))}\n\nEvery fit:\n\n{body}"
        else:
            body = f"Not measured yet: run `python benchmarks/speed/{name}.py` on a quiet machine."
        return f"<!-- {name} -->\n{body}\n<!-- end -->"

    return re.sub(r"<!-- (?P<name>(?!end)\w+) -->\n.*?<!-- end -->", filled, text, flags=re.DOTALL)


def _time_to_answer(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a method and number of threads; ``seconds_to_reach`` is the median of the fits that reached the MCC.

    “both, takes”: the seconds of CGVAE over those of the row's method on the same seed, the median [least, most].
    """
    own = frame.groupby(["threads", "method"], sort=False)
    shown = own.agg(
        fits=("seed", "size"),
        median_seconds=("seconds", "median"),
        worst_mcc=("mcc", "min"),
        fits_that_reached=("reached", "count"),
        seconds_to_reach=("reached", "median"),
        longest=("reached", "max"),
    )
    places = ["threads", "seed"]
    seconds = frame[frame["method"] == "both"].set_index(places)["seconds"].rename("ours")
    share = (frame.join(seconds, on=places)["ours"] / frame["seconds"]).groupby([frame["threads"], frame["method"]])
    shown["both, takes"] = share.apply(lambda own: f"{own.median():.2f} [{own.min():.2f}, {own.max():.2f}]")
    return shown.reset_index()


def _fits_in_words(path: Path) -> str:
    """Counts of ``audit_fits``: what is called identified, and is right."""
    counts = audit_counts(path).set_index("fits").T.to_dict()
    own, others, few = counts["own"], counts["others"], counts["too few latents"]
    return (
        f"The audit of {own['problems']} default fits of the project's generator and {others['problems']} fits of data "
        "as other groups generate them, on seeds that no threshold was chosen on: of the latents that it calls "
        f"identified, {own['named_right']} of {own['named']} and {others['named_right']} of {others['named']} "
        "correlate at 0.95 or more with a true one; of the latents that do so and whose conditions truly hold, it "
        f"calls {own['of_these_named']} of {own['right_and_hold']} and {others['of_these_named']} of "
        f"{others['right_and_hold']} identified. It detects too few latents in {few['number_fails']} of "
        f"{few['problems']} fits that have too few, and calls {few['named']} of their latents identified; it reports "
        f"too few latents in {own['number_fails'] + others['number_fails']} of the "
        f"{own['problems'] + others['problems']} other fits."
    )


def _audit_fits(path: Path) -> list[str]:
    if not path.exists():
        return []
    said = (
        "\n## Audit\n\n`python benchmarks/audit_fits.py`: `model.audit()` of default fits with the present training. "
        f"{_fits_in_words(path)} `named`: called identified; `named_right`: of these those that correlate at 0.95 or "
        "more with a true latent; `right_and_hold`: latents that do so and whose conditions hold by the truth; "
        "`of_these_named`: of these those called identified; `number_fails`: fits said to have too few latents.\n"
    )
    return [said, _table(audit_counts(path))]


def _audit_in_words(path: Path) -> str:
    whole = pd.read_csv(path).iloc[0]
    said = (
        f"The audit, on {whole['problems']} generated problems of every kind that nothing was chosen on, each with "
        f"8,000 rows that the model had not seen: of {whole['called_identified']} latents called identified "
        f"{_percent(whole, 'of_these_right')} correlate at 0.95 or more with a true one; of "
        f"{whole['right_and_conditions_hold']} that do so and whose conditions truly hold it names "
        f"{_percent(whole, 'of_these_called')}."
    )
    few = path.with_stem(f"{path.stem}_held_out")
    if not few.exists():
        return said
    own = pd.read_csv(few).iloc[0]
    return (
        f"{said} With the 800 rows alone that the fit held out, "
        f"{_percent(own, 'of_these_right')} of {own['called_identified']} are right, and it names "
        f"{_percent(own, 'of_these_called')} of {own['right_and_conditions_hold']}."
    )


def _percent(row: pd.Series, name: str) -> str:
    return f"{row[name]:.1%} [{row[name + '_low']:.1%}, {row[name + '_high']:.1%}]"


def _audit(path: Path) -> list[str]:
    if not path.exists():
        return []
    whole = pd.read_csv(path).rename(columns={"right_and_conditions_hold": "right_and_hold"})
    shown = whole.drop(columns="failed").rename(columns=lambda name: name.replace("of_these_", ""))
    said = (
        "\n## Audit, before\n\n`python benchmarks/audit_calibration.py --first-seed 2600 --problems "
        f"{whole['problems'].iloc[0]}`, and with `--audited held-out` (now `own`): verdicts against known truths. "
        f"{_audit_in_words(path)} Measured with an earlier course of the training and an earlier audit. "
        f"{whole['failed'].iloc[0]:.0f} problems failed. By kind of problem, with 8,000 rows: `right`, share of all "
        "latents that correlate at 0.95 or more with a true one on further rows; then those called identified, the "
        "share of them that is right with its interval from resampling problems; those that are right and whose "
        "conditions hold by the truth, and the share of them that is called identified.\n"
    )
    return [said, _table(shown)]


def _gan_on_vectors(path: Path, said: str) -> list[str]:
    if not path.exists():
        return []
    rows = pd.read_csv(path)
    shown = ["content_r2", "domain_accuracy", "chance", "n_style", "mcc", "support_auroc", "entries_below_0.1"]
    columns = ["method", "seed", *shown, "true_zeros", "seconds"]
    own = rows.groupby("method", sort=False)
    mean = own[[*shown, "seconds"]].mean().round(3)
    mean.insert(0, "seeds", own.size())
    parts = [said, _table(mean.reset_index()), _jacobian_term(rows), "\nEvery fit:\n", _table(rows[columns])]
    return [part for part in parts if part]


def _jacobian_term(rows: pd.DataFrame) -> str:
    """In how many seeds the Jacobian term made what better, of those that were run with and without it."""
    found = []
    for method in rows["method"].unique():
        pair = [rows[rows["method"] == name].set_index("seed") for name in (method, f"{method}, no Jacobian term")]
        seeds = pair[0].index.intersection(pair[1].index)
        if not len(seeds):
            continue
        names = ["entries_below_0.1", "support_auroc", "mcc"]
        better = (pair[0].loc[seeds, names] > pair[1].loc[seeds, names]).sum().tolist()
        found.append(
            f"\n{method}: with the Jacobian term the mixing is sparser in {better[0]}, the area under the ROC curve of "
            f"the support larger in {better[1]} and MCC higher in {better[2]} of {len(seeds)} seeds."
        )
    return "".join(found)


def _digits(path: Path, said: str) -> list[str]:
    if not path.exists():
        return []
    rows = pd.read_csv(path)
    own = rows.pivot(index="seed", columns="method", values="content")
    means = rows.groupby("method", sort=False)[["content", "style", "rmse", "n_style", "seconds"]].mean().round(4)
    for method in means.index[1:]:
        gain = own["all"] - own[method]
        gain = gain.dropna()
        half = stats.t.ppf(0.975, len(gain) - 1) * gain.sem()
        means.loc[method, "all better by"] = f"{gain.mean():.4f} [{gain.mean() - half:.4f}, {gain.mean() + half:.4f}]"
    return [said, _table(means.reset_index()), "\nEvery fit:\n", _table(rows)]


def _emoji(path: Path) -> list[str]:
    if not path.exists():
        return []
    said = (
        "\n## Emoji\n\n`python benchmarks/translation.py --data emoji --methods all`: held-out emoji drawn "
        "in the two other vendors' styles; `content` is the role, one of 27.\n"
    )
    return [said, _table(pd.read_csv(path))]


def _translators(path: Path) -> list[str]:
    if not path.exists():
        return []
    said = (
        "\n## Translations beside simple methods\n\n"
        "`python benchmarks/translators.py`: held-out images carried to every other domain. `rmse`: grey "
        "levels from the same thing as it is there; `content`, `style`: what judges of real images read, who "
        "read `real_content` and `real_style` of real held-out ones; `unseen_`: characters that training "
        "lacked in the source's or the target's typeface; `linear`, `nonlinear`: how often the domain is read "
        "from the content of held-out real images, cross-validated, with `chance` beside it; `domain_found`: "
        "of images without a label; samples: share that reads as a character (surer than .9) of its domain, "
        "precision and recall. The eight typefaces and the height of their letters were chosen before any "
        "model was trained, so that copying costs as much as in an earlier study. Every fit:\n"
    )
    return [said, _table(pd.read_csv(path))]


def _pairs(path: Path) -> list[str]:
    if not path.exists():
        return []
    said = (
        "\n## Pairs that halves of the images agree on\n\n`python benchmarks/pairs.py`: of the pairs that "
        "`ImageTranslator` could use, the share that transports learnt from two halves of the images both find "
        "(`repeated`), and the share that shows the same thing. Pairs are used where two fifths repeat; that bound was "
        "chosen on typefaces, and on emoji of vendors that are not here:\n"
    )
    return [said, _table(pd.read_csv(path))]


def _sprites(path: Path) -> list[str]:
    if not path.exists():
        return []
    rows = pd.read_csv(path)
    said = (
        "\n## Factors of images\n\n`python benchmarks/sprites.py`: `CGVAEImages` on drawn shapes in ten domains, as "
        "many latents as there are factors. Of “squares” (16 × 16 pixels) x, y, scale and hue change between domains "
        "and the angle does not; of “shapes” (32 × 32) so do squares and hearts; “grey” (64 × 64) is in the manner "
        "of dSprites. Fitted to 5,000 images, scored on 2,000 fresh ones: mean correlation of the factors that "
        "change, one to one (`changing`; `least` of the seeds), interval of the MCC of all, correlation of each; R² "
        "of the factors from the latents by boosted trees; error of the images that come back from the latents, and "
        "from the codes (of 255); agreement of the starts. Without the penalty: “changes only”; with labels shuffled "
        "over the images: “shuffled domains”; these two take the autoencoder of the first, and their seconds are those "
        "of the second stage. Means over the seeds:\n"
    )
    by = rows.groupby(["problem", "method"], sort=False)
    means = by[[*rows.columns[3:-1]]].mean().round(3).drop(columns=["low", "high"])
    means.insert(0, "least", by["changing"].min())
    means.insert(0, "seeds", by.size())
    return [said, _table(means.reset_index()), "\nEvery fit:\n", _table(rows)]


def _study(name: str, words: str, rows: pd.DataFrame) -> list[str]:
    """Margins, phase diagrams and every setting of one study."""
    seeds = rows["seed"].nunique()
    study = PRESETS[name](seeds)
    planned = len(study.runs())
    settings = summary.by_setting(rows, study.axes)
    margins = summary.margins(rows, study.axes)
    failed = int(rows["error"].notna().sum())
    folds = int((~rows.drop_duplicates([*study.axes, "seed"])["injective"].astype(bool)).sum())
    parts = [
        f"\n## {name.capitalize()}\n\n{words} `unmix bench {name} --seeds {seeds} --out runs/{name}`: {len(rows)} of "
        f"{planned} runs, {failed} with an error; {folds} of the problems are not one to one on their sample.\n",
        "MCC of “both” minus that of the other method, paired over problems and seeds. “Promised to both alone”: the "
        "support needs more than one domain and no more than there are, and there are fewer than the 2n + 1 that "
        "changes alone need.\n",
        _table(margins),
        _plainly(settings, study.axes),
    ]
    if set(study.axes) == {"n_domains", "density"}:
        parts += [_picture(f"{name}-{m.replace(' ', '-')}", settings, m) for m in summary.ABLATIONS]
    axes = [axis for axis in study.axes if axis in settings]
    parts += ["\nEvery setting:\n", _table(settings[[*axes, *[c for c in COLUMNS if c in settings]]])]
    return parts


def _plainly(settings: pd.DataFrame, axes: Sequence[str]) -> str:
    """Where “both” recovers the latents in the mean, where it does not, and what is better there."""
    axes = [axis for axis in axes if axis in settings]
    means = settings.set_index([*axes, "method"])["mcc"].unstack()
    lines = {"reached": [], "missed": [], "beaten": []}
    for place, own in means.iterrows():
        both = own["both"]
        values = place if isinstance(place, tuple) else (place,)
        name = ", ".join(f"{axis.replace('n_', '')} {value}" for axis, value in zip(axes, values, strict=True))
        lines["reached" if both >= GOOD else "missed"].append(f"{name} ({both:.4f})")
        better = own[own > both + MARGIN].drop("both", errors="ignore").sort_values(ascending=False)
        if len(better):
            lines["beaten"].append(f"{name}: " + ", ".join(f"{other} {mcc:.4f}" for other, mcc in better.items()))
    words = {
        "reached": f"Mean MCC of “both” {GOOD} or more",
        "missed": "Less",
        "beaten": f"Better than “both” by more than {MARGIN} in the mean",
    }
    return (
        "\n" + "\n".join(f"- {words[kind]}: {'; '.join(found) or 'nowhere'}." for kind, found in lines.items()) + "\n"
    )


def _picture(name: str, settings: pd.DataFrame, method: str) -> str:
    PICTURES.mkdir(exist_ok=True)
    svg = figures.phase_diagram(settings, method, "n_domains", "density")
    (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")
    caption = f"“{method}”: mean MCC by domains and density. Framed: the supports need no more domains than there are."
    return f"\n![MCC of {method} by domains and density](figures/{name}.svg)\n\n{caption}\n"


def _table(frame: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        if value is None or value != value:
            return ""
        # -0.0 + 0.0 is 0.0.
        return f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)

    head = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + "---|" * frame.shape[1]]
    return "\n".join(head + ["| " + " | ".join(map(cell, row)) + " |" for row in frame.astype(object).to_numpy()])


if __name__ == "__main__":
    main()
