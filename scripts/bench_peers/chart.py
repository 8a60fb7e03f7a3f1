"""A picture of the figures that a README shows: one panel a figure, one bar a side, no dependency."""

from html import escape

from table import evaluate, number

PANELS = (
    ("produce-1024-3", "rate"),
    ("produce-1024-1000", "rate"),
    ("produce-1024-3", "cpu_record"),
    ("ack-2000", "p99_ms"),
    ("topics-one-by-one", "p50"),
    ("start", "first_ack"),
)
COLOURS = {"ringlog": "#1f6feb", "kafka": "#8b949e", "kafka-flush": "#c9d1d9", "floor": "#e3b341"}
NAMES = {"ringlog": "ringlog (durable)", "kafka": "Kafka (page cache)", "kafka-flush": "Kafka, flushing"}
WIDTH, PANEL, HEAD, BAR, LABEL, COLUMNS = 860, 410, 34, 24, 130, 2


def panel(entry, left, top):
    """One figure's bars, drawn from (left, top); returns the elements and the height."""
    better = "higher is better" if entry["higher_is_better"] else "lower is better"
    title = f"{entry['title']} ({entry['unit']}, {better})" if entry["unit"] else f"{entry['title']} ({better})"
    out = [f'<text x="{left}" y="{top + 16}" class="title">{escape(title)}</text>']
    sides = [side for side in NAMES if side in entry["sides"]]
    longest = max(entry["sides"][side]["max"] for side in sides) or 1
    scale = (PANEL - LABEL - 90) / longest
    for place, side in enumerate(sides):
        values = entry["sides"][side]
        y = top + HEAD + place * BAR
        length = max(values["median"] * scale, 1)
        start, middle = left + LABEL, y + (BAR - 6) / 2
        low, high = start + values["min"] * scale, start + values["max"] * scale
        out += [
            f'<text x="{start - 8}" y="{middle + 4:.1f}" class="side">{escape(NAMES[side])}</text>',
            f'<rect x="{start}" y="{y}" width="{length:.1f}" height="{BAR - 6}" fill="{COLOURS[side]}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" stroke="#24292f"/>',
            f'<text x="{max(high, start + length) + 6:.1f}" y="{middle + 4:.1f}" class="value">'
            f"{number(values['median'])}</text>",
        ]
    return out, HEAD + len(sides) * BAR + 18


def svg(results):
    """The chart of `results`; bars are medians, the thin lines reach from the least to the most."""
    entries = {(entry["row"], entry["figure"]): entry for entry in evaluate(results["samples"])}
    shown = [entries[key] for key in PANELS if key in entries and set(entries[key]["sides"]) & set(NAMES)]
    out, top = [], 10
    for first in range(0, len(shown), COLUMNS):
        heights = []
        for column, entry in enumerate(shown[first : first + COLUMNS]):
            drawn, height = panel(entry, 10 + column * (WIDTH // COLUMNS), top)
            out += drawn
            heights.append(height)
        top += max(heights)
    about = results["about"]
    note = f"{about['machine']['cores']} cores shared with the client, {about['rounds']} rounds, {about['date'][:10]}"
    out.append(f'<text x="10" y="{top + 12}" class="note">{escape(note)}</text>')
    style = (
        "text{font:12px sans-serif;fill:#24292f}.title{font-weight:bold}.side{text-anchor:end}"
        ".note{font-size:11px;fill:#57606a}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 24}" width="{WIDTH}">',
            f"<style>{style}</style>",
            f'<rect width="{WIDTH}" height="{top + 24}" fill="#ffffff"/>',
            *out,
            "</svg>\n",
        ]
    )
