"""Medians, ranges and paired ratios of the samples, as a table."""

from statistics import median

from rows import GROUPS

# The ratio columns: ringlog against each of these, where it was measured.
AGAINST = ("kafka", "kafka-flush", "floor", "fio")
# Fewer pairs than these prove nothing.
PAIRS = 5


def figures():
    """All figures in the order of the table: (row, key, Figure)."""
    for rows in GROUPS.values():
        for row in rows:
            for key, figure in row.figures.items():
                yield row.name, key, figure


def by_round(samples, row, key, side):
    """The samples of one figure of one side, by round."""
    return {
        sample["round"]: sample["figures"][key]
        for sample in samples
        if sample["row"] == row and sample["side"] == side and sample["figures"].get(key) is not None
    }


def spread(values):
    values = list(values)
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


def compare(figure, ours, theirs, goal):
    """The paired ratios of two sides; a win needs pairs enough, each of them better, and the median so by half."""
    ratios = [ours[r] / theirs[r] for r in ours if r in theirs and theirs[r] > 0]
    if not ratios:
        return None
    gains = ratios if figure.higher_is_better else [1 / ratio if ratio > 0 else float("inf") for ratio in ratios]
    ratio = spread(ratios)
    ratio["win"] = len(gains) >= PAIRS and min(gains) > 1 and median(gains) >= 1.5
    if goal is not None:
        ratio["goal"] = goal
        ratio["reached"] = ratio["median"] >= goal if figure.higher_is_better else ratio["median"] <= goal
    return ratio


def evaluate(samples):
    """The table as data: one entry for each figure that has any sample."""
    entries = []
    for row, key, figure in figures():
        sides = {}
        for side in sorted({sample["side"] for sample in samples}):
            if values := by_round(samples, row, key, side):
                sides[side] = values
        if not sides:
            continue
        ratios = {}
        for other in AGAINST:
            if figure.compared and "ringlog" in sides and other in sides:
                ratio = compare(figure, sides["ringlog"], sides[other], figure.goals.get(other))
                if ratio:
                    ratios[other] = ratio
        entries.append(
            {
                "row": row,
                "figure": key,
                "title": figure.title,
                "unit": figure.unit,
                "higher_is_better": figure.higher_is_better,
                "sides": {side: spread(values.values()) for side, values in sides.items()},
                "ringlog_against": ratios,
            }
        )
    return entries


def number(value):
    """Three significant figures, no exponents."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def cell(values):
    if values is None:
        return "-"
    return f"{number(values['median'])} ({number(values['min'])}-{number(values['max'])})"


def ratio_cell(ratio):
    if ratio is None:
        return "-"
    mark = " win" if ratio["win"] else ""
    if "goal" in ratio:
        mark += f" [goal {ratio['goal']:g}: {'reached' if ratio['reached'] else 'MISSED'}]"
    return cell(ratio) + mark


def text(results):
    """The table for people."""
    entries = evaluate(results["samples"])
    present = {side for entry in entries for side in entry["sides"]}
    sides = [side for side in ("kafka", "kafka-flush", "ringlog", "floor", "fio") if side in present]
    against = [other for other in AGAINST if any(other in entry["ringlog_against"] for entry in entries)]
    lines = [["", "unit", *sides, *[f"ringlog / {other}" for other in against]]]
    for entry in entries:
        lines.append(
            [
                entry["title"],
                entry["unit"],
                *[cell(entry["sides"].get(side)) for side in sides],
                *[ratio_cell(entry["ringlog_against"].get(other)) for other in against],
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    out = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines]
    out.insert(1, "-" * max(len(line) for line in out))
    out += ["", "Median (min-max) of the rounds; ratios are of the pairs of a round. ringlog acknowledges after the",
            "flush, always; Kafka by default before it. \"win\": better in each of 5 pairs or more, by half in the median."]
    for failure in results["failures"]:
        out.append(f"no result: {failure['row']}, {failure['side']}, round {failure['round']}: {failure['reason']}")
    out.append("")
    for name, value in results["about"].items():
        out.append(f"{name}: {value}")
    return "\n".join(out)
