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
from summarise_real import real_sections
from translator_terms import compared

from unmix.bench import figures, summary
from unmix.bench.presets import PRESETS
from unmix.bench.run import ROWS, read_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
PICTURES = ROOT / "docs/figures"
README_MARKS = "<!-- results -->\n", "<!-- end of results -->\n"
WORDS = {
    "targets": "Supports that the theory guarantees with the domains there are. `seconds`: beside other work.",
    "claim": "Domains × density: where do changes, sparsity, both and the baselines recover the latents?",
    "violation": "One assumption broken at a time: weak extra edges, dependent latents, noise, sources not Gaussian.",
    "penalty": "The penalty at 32 rows of every second batch, compared with all rows, 8 rows, every batch, every 4th.",
    "quick": "The smallest study.",
}
_SIZE_WORDS = ("latents", "features", "domains")
_SPARSITY_WORDS = {
    ("log", "auto"): "the default settings",
    ("log", "0.5"): "the same penalty at a fixed weight of 0.5",
    ("l1", "0.2"): "L1 at weight 0.2",
    ("l1", "0.02"): "a tenth of that",
    ("l1", "0.0"): "no penalty",
}
COLUMNS = ["method", "seeds", "domains_needed", "mcc", "low", "high", "worst_mcc", "support_f1", "agreement", "seconds"]

GOOD, MARGIN = 0.97, 0.01
ON_ROWS = (
    "\n## CG-GAN on rows\n\n`python benchmarks/cggan_vectors.py`: four latents of which two never change, eight "
    "features, six domains. `content_r2`: held-out R² of the unchanging true latents, predicted from the latents found "
    "to be content; `domain_accuracy`: accuracy of a classifier that predicts the domain from the latter; `n_style`: "
    "number of latents found to be style; the truth is two, which iMSDA is told. The decay of the gradient penalty and "
    "the form and weight of the Jacobian term were chosen on other seeds. `seconds`: two cores were shared with other "
    "fits; those without the Jacobian term ran on a machine several times as fast. Means over seeds:\n"
)
IN_FEW_DOMAINS = (
    "\n## CG-GAN in two domains: what the Jacobian term does\n\n"
    "`python benchmarks/cggan_vectors.py --problem few-domains --seeds 585 586 587`: one latent of four never "
    "changes, there are two domains, and the support is one for which the theory needs no more. Changes alone do not "
    "identify the three style latents; the Jacobian term has to separate them. The number of style latents is given, "
    "without a mask. Compare `entries_below_0.1` with `true_zeros`. Means over seeds:\n"
)
DIGITS = (
    "\n## Two-colour digits\n\n`python benchmarks/translation.py`: held-out digits translated to the three other "
    "pairs of colours. `content`, `style`: share of the translations that keep their digit and have the target's "
    "colours, according to classifiers (“judges”), with 95 % intervals over images; `real_content`: the judge's "
    "accuracy on real held-out digits. Means over seeds; “all better by”: content of the full method minus that of the "
    "method in the row, paired over seeds, with the 95 % interval of Student's t:\n"
)
ALL_LAYERS = (
    "\n## Two-colour digits, style on every layer\n\n`python benchmarks/translation.py --data digits-all-layers`: the "
    "same digits, but style may change shapes too. One domain is dark on light, the others light on dark, and nothing "
    "in the data says which dark shape corresponds to which light one. A fit that matched the wrong ones would keep "
    "half of the digits, as half of all translations go to or from that domain; none of these does. If domains differ "
    'only in colours, `modulation="colours"` makes sure of it. Columns as above:\n'
)
EARLIER = (
    "\n\nMeasured with an earlier training schedule: no linear starts, separate noise of each feature from the start, "
    "`sparsity=0.5`.\n\n"
)
NOT_ANEW = ("claim", "violation", "penalty", "quick")
SAME = ("cores", "load_before", "torch", "python", "repeats")
OTHERS = ("both", "joint diagonalization", "FastICA", "PCA")
ABLATIONS = ("changes only", "sparsity only")
CONTENT = ("content-style", "content-style-deep")
OTHERS_WORDS = (
    "`python benchmarks/others.py`: data from generators that other groups have published (`generators.py` cites each "
    "and lists the differences); default fits with the true number of latents. MCC over all rows, mean over data "
    "seeds. Many of these problems are not identifiable, or not by this model. The initial noise was chosen with "
    "`heavy-tails`, `heavy-tails-mild`, `invariant-linear`, `interventions-paired`, `interventions-graph` and "
    "`tcl-lrelu` in view, and when latents are rotated by their shape and when an invertible network is tried and kept "
    "with all problems, on these seeds. “Changes only”: without the penalty; “sparsity only”: without domains."
)


def main() -> None:
    parts = [
        "# Results\n\nWritten by `python benchmarks/summarise.py` from the tables in `benchmarks/results/`. "
        "Unless stated otherwise, every method is fitted to 8,000 rows and scored on 2,000 fresh ones, with its "
        "default settings (iVAE: 100 epochs) and the start it selects. Seconds are wall time with one thread, two fits "
        "at once on two cores and at times other work; compare them only within a study, since studies ran on "
        "different machines. Intervals are 95 % intervals of Student's t over data seeds. MCC: mean correlation of "
        "matched latents with the true ones; they are matched on one half of the rows and scored on the other.\n"
    ]
    for name, words in WORDS.items():
        path = RESULTS / name / ROWS
        if path.exists():
            said = words + (EARLIER if name in NOT_ANEW else " ")
            parts += _study(name, said, pd.DataFrame(read_rows(path).values()))
    for title, words, table in real_sections(RESULTS):
        parts += [f"\n## {title}\n\n{words}\n", _table(table)]
    counted, table = _others(RESULTS / "others" / ROWS)
    parts += [f"\n## Data of other groups' generators\n\n{OTHERS_WORDS} {counted}\n", _table(table)]
    sachs = RESULTS / "sachs.csv"
    if sachs.exists():
        parts += [
            "\n## Sachs protein signalling\n\n"
            "`python benchmarks/sachs.py`: four latents, nine conditions. `agreement`: mean over all pairs of starts, "
            "on held-out rows; `targets_hit`: number of interventions, of seven, that move the latent with the "
            "strongest effect on their known target (chance: 1 in 4 each)." + "\n",
            _table(pd.read_csv(sachs, dtype={"sparsity": str})),
        ]
    parts += _audit_fits(RESULTS / "audit_fits_seeds_132_133.jsonl") + _audit(RESULTS / "audit.csv")
    parts += _gan_on_vectors(RESULTS / "cggan_vectors.csv", ON_ROWS)
    parts += _gan_on_vectors(RESULTS / "cggan_few_domains.csv", IN_FEW_DOMAINS)
    parts += _digits(RESULTS / "digits.csv", DIGITS)
    parts += _digits(RESULTS / "digits_all_layers.csv", ALL_LAYERS) + _emoji(RESULTS / "emoji.csv")
    parts += _translators(RESULTS / "translators.csv") + _terms(RESULTS / "translators_by_content.csv")
    parts += _pairs(RESULTS / "pairs.csv")
    parts += _sprites(RESULTS / "sprites.csv")
    (ROOT / "docs/results.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    _update_readme(
        pd.DataFrame(read_rows(RESULTS / "targets" / ROWS).values()),
        pd.read_csv(sachs, dtype={"sparsity": str}),
        RESULTS / "audit_fits_seeds_132_133.jsonl",
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
        f"Generated problems that are identifiable by the theory, {seeds} data seeds, two of which were in view when "
        "the final weight of the penalty was chosen, and one of them when the noise that features share was: mean "
        "correlation with the true latents (worst seed).",
        f"Mean gain from using both, paired over problems, with 95 % interval: {', '.join(said)}.",
        f"Protein signalling (the demo's data), mean over {sachs['seed'].nunique()} seeds: the starts "
        f"agree at {', '.join(names)}. The default settings take the linear model here; {hits.iloc[0]:.0f} of "
        f"{sachs['targets'].max()} interventions then move the latent that drives their known target, otherwise "
        f"{hits.iloc[1:].min():.1f} to {hits.iloc[1:].max():.1f}; by chance it would be about two. This is weak "
        "evidence.",
    )
    counted, _ = _others(RESULTS / "others" / ROWS)
    paragraphs += (
        "Data from generators that other groups have published, fits with the true number of latents, mean over three "
        f"data seeds, compared with joint diagonalization, FastICA and PCA: {counted} All of the problems were in view "
        "when the rotation by shape and the use of the invertible network were chosen, six of them when the initial "
        "noise was.",
    )
    if audit.exists():
        paragraphs = (*paragraphs, _fits_in_words(audit))
    before_table, *after_table = [textwrap.fill(paragraph, 128) for paragraph in paragraphs]
    _, words, tables = real_sections(RESULTS)[0]
    real = [textwrap.fill(f"Real tables and two simulated ones. {words}", 128), _table(tables)]
    text = "\n\n".join([*real, before_table, _table(table), *after_table]) + "\n"
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(README_MARKS[0])
    after = rest.split(README_MARKS[1])[1]
    readme.write_text(before + README_MARKS[0] + text + README_MARKS[1] + after, encoding="utf-8")


def _two(values: pd.Series) -> str:
    return " and ".join(f"{value:.3f}" for value in values)


def _others(path: Path) -> tuple[str, pd.DataFrame]:
    """Counts in words, and means over the data seeds."""
    rows = pd.DataFrame(list(read_rows(path).values()))
    rows = rows[rows["error"].isna()]
    means = rows.pivot_table(index="problem", columns="method", values="mcc", sort=False)[[*OTHERS, *ABLATIONS]]
    own, best, alone = means[OTHERS[0]], means[[*OTHERS[1:]]].max(axis=1), means[[*ABLATIONS]].max(axis=1)
    worse = own.index[own < alone - 0.02]
    words = (
        f"CG-VAE is better than all three linear methods by more than 0.02 on {(own > best + 0.02).sum()} of "
        f"{len(means)} problems, and worse than the best of them by more than that on {(own < best - 0.02).sum()} "
        f"({', '.join(own.index[own < best - 0.02])}). It is worse by more than that than the better of its own fits "
        f"without the penalty and without domains on {len(worse)} ({', '.join(worse)})."
    )
    style = rows.pivot_table(index="problem", columns="method", values="mcc_changing").loc[[*CONTENT], [*means]]
    words += (
        " In content-style and content-style-deep the content is N(0, I) in every domain, so that its rotation cannot "
        f"be found: of style alone the MCC is {_two(style[OTHERS[0]])}, that of the best of the other columns "
        f"{_two(style.drop(columns=OTHERS[0]).max(axis=1))}."
    )
    sizes = rows.drop_duplicates("problem").set_index("problem")[["latents", "features", "domains"]]
    table = sizes.join(means.map("{:.3f}".format)).rename(columns={OTHERS[0]: "CG-VAE"})
    table["seeds"] = rows[rows["method"] == OTHERS[0]].groupby("problem")["seed"].nunique()
    return words, table.loc[means.index].reset_index()


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
        f"The audit was applied to {own['problems']} default fits of problems from unmix's generator and to "
        f"{others['problems']} fits of problems from generators of other groups, on seeds 132 and 133; no rule "
        "of the audit was changed after a look at them. One fit (heavy-tails, seed 132) brought to light that linear "
        "models were taken where latents are as many as features; this was corrected, and the problem fitted again. Of "
        "the latents that it calls "
        f"identified, {own['named_right']} of {own['named']} and {others['named_right']} of {others['named']} "
        "correlate at 0.95 or more with a true one. Of the latents that do so and whose conditions truly hold, it "
        f"calls {own['of_these_named']} of {own['right_and_hold']} and {others['of_these_named']} of "
        f"{others['right_and_hold']} identified. Of {few['problems']} fits with too few latents it detects "
        f"{few['number_fails']}, and calls {few['named']} of their latents identified; it reports too few latents in "
        f"{own['number_fails'] + others['number_fails']} of the {own['problems'] + others['problems']} other fits."
    )


def _audit_fits(path: Path) -> list[str]:
    if not path.exists():
        return []
    said = (
        f"\n## Audit\n\n`python benchmarks/audit_fits.py`: `model.audit()` of default fits. {_fits_in_words(path)} "
        "`named`: latents called identified; `named_right`: those of them that correlate at 0.95 or more with a true "
        "latent; `right_and_hold`: latents that do so and whose conditions hold in the true model; `of_these_named`: "
        "those of them that are called identified; `number_fails`: fits reported to have too few latents.\n"
    )
    return [said, _table(audit_counts(path))]


def _audit_in_words(path: Path) -> str:
    whole = pd.read_csv(path).iloc[0]
    said = (
        f"The audit was applied to {whole['problems']} generated problems of every kind, on which nothing was chosen, "
        f"with 8,000 rows each that the model had not seen. Of {whole['called_identified']} latents called identified, "
        f"{_percent(whole, 'of_these_right')} correlate at 0.95 or more with a true one; of "
        f"{whole['right_and_conditions_hold']} that do so and whose conditions truly hold, it calls "
        f"{_percent(whole, 'of_these_called')} identified."
    )
    few = path.with_stem(f"{path.stem}_held_out")
    if not few.exists():
        return said
    own = pd.read_csv(few).iloc[0]
    return (
        f"{said} With only the 800 rows that the fit held out, "
        f"{_percent(own, 'of_these_right')} of {own['called_identified']} are right, and it calls "
        f"{_percent(own, 'of_these_called')} of {own['right_and_conditions_hold']} identified."
    )


def _percent(row: pd.Series, name: str) -> str:
    return f"{row[name]:.1%} [{row[name + '_low']:.1%}, {row[name + '_high']:.1%}]"


def _audit(path: Path) -> list[str]:
    if not path.exists():
        return []
    whole = pd.read_csv(path).rename(columns={"right_and_conditions_hold": "right_and_hold"})
    shown = whole.drop(columns="failed").rename(columns=lambda name: name.replace("of_these_", ""))
    said = (
        "\n## Audit of an earlier version\n\n`python benchmarks/audit_calibration.py --first-seed 2600 --problems "
        f"{whole['problems'].iloc[0]}`, and with `--audited held-out` (now `own`): verdicts compared with the "
        f"truth. {_audit_in_words(path)} Measured with an earlier training schedule and an earlier audit. "
        f"{whole['failed'].iloc[0]:.0f} problems failed. By kind of problem, with 8,000 rows: `right`, share of all "
        "latents that correlate at 0.95 or more with a true one on further rows; then the number called identified, "
        "and the share of them that is right, with its interval from resampling problems; then the number that are "
        "right and whose conditions hold in the true model, and the share of them that is called identified.\n"
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
        "\n## Emoji\n\n`python benchmarks/translation.py --data emoji --methods all`: held-out emoji, "
        "translated to the styles of the two other vendors; `content` is the role, one of 27.\n"
    )
    return [said, _table(pd.read_csv(path))]


def _translators(path: Path) -> list[str]:
    if not path.exists():
        return []
    said = (
        "\n## Translations beside simple methods\n\n"
        "`python benchmarks/translators.py`: held-out images translated to every other domain. `rmse`: "
        "difference to the true image of the target domain, in grey levels; `content`, `style`: accuracy of judges "
        "trained on real images, whose accuracy on held-out real images is `real_content` and `real_style`; `unseen_`: "
        "the same for characters that were not in the training images of the source or the target; `linear`, "
        "`nonlinear`: cross-validated accuracy of predicting the domain from the content of held-out real images, with "
        "`chance`; `domain_found`: accuracy of the domain that the model finds for images without a label; "
        "`samples_read`: share of samples that the judge recognises as a character of their domain with a probability "
        "above .9; precision and recall of samples. “emoji-dark”: all people of one skin tone are held out, not a "
        "fifth of the people at random. The eight typefaces and the height of their letters were chosen before any "
        "model was trained, so that copying has the same error as in an earlier study. Every fit:\n"
    )
    return [said, _table(pd.read_csv(path))]


def _terms(path: Path) -> list[str]:
    if not path.exists():
        return []
    said = (
        "\n## Terms of ImageTranslator\n\n`python benchmarks/translator_terms.py`: the fit to typefaces without "
        "adversarial steps, the same with one term left out or added, and other methods that were measured "
        "beside it, the default too. `_difference`: that method minus the first, of the same seed and length."
        " 95 % intervals resample the 62 characters; they do not cover what another seed would change. Judges"
        " trained on another machine differ slightly; `judges` are the hashes of those of content and style, "
        "and only fits that the same judges read are compared. At 16 pixels the judge of content reads .992 "
        "(“earlier”) or .991 of real images here, .997 or the same in the table above. Characters that are in"
        " the training images of source and target:\n"
    )
    rows = pd.read_csv(path)
    other = "\nOther characters:\n"
    return [said, _table(compared(rows)), other, _table(compared(rows, unseen=True))]


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
        "\n## Factors of images\n\n`python benchmarks/sprites.py`: `CGVAEImages` on drawn shapes in ten domains, with "
        "as many latents as factors. In “squares” (16 × 16 pixels) x, y, scale and hue change between domains and the "
        "angle does not; in “shapes” (squares and hearts, 32 × 32) the shape changes too; in “grey” (squares, "
        "ellipses and hearts without colour, 64 × 64, as in dSprites) x, y and scale change. Fitted to 5,000 images, "
        "scored on 2,000 fresh ones. `changing`: mean correlation of the "
        "factors that change with their matched latents (`least`: worst seed); `low`, `high`: interval of the MCC of "
        "all factors; then the correlation of each factor; `r2`: of the factors, predicted from the latents by boosted "
        "trees; `rmse`, `rmse_codes`: error of images decoded from the latents and from the codes (of 255); "
        "`agreement`: of the starts. “both” has the penalty that evidence chooses, “changes only” none, as by "
        "default, and “Gaussian prior” no splines either; of the fits named shuffled the labels are shuffled over the "
        "images. Most fits reuse an autoencoder, and their seconds are those of the second stage (“both”, “shuffled, "
        "changes only”, the first fit of each seed of “Gaussian prior”: of both stages). Means over seeds:\n"
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
        f"\n## {name.capitalize()}\n\n{words}`unmix bench {name} --seeds {seeds} --out runs/{name}`: {len(rows)} of "
        f"{planned} runs, {failed} with an error; in {folds} of the problems the mixing is not injective on the "
        "sample.\n",
        "MCC of “both” minus that of the other method, paired over problems and seeds. “Promised to both alone”: "
        "problems that the theory identifies only from both: the support needs more than one domain and no more than "
        "there are, and there are fewer than the 2n + 1 domains that changes alone need.\n",
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
        "missed": f"Mean MCC of “both” below {GOOD}",
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
