"""A picture of what a client notices: one bar a situation, on a scale of powers of ten."""

from html import escape
from math import log10

COLOURS = {"ringlog": "#1f6feb", "kafka": "#8b949e"}
NAMES = {"ringlog": "ringlog", "kafka": "Apache Kafka"}
WIDTH, LEFT, RIGHT, BAR, HEAD = 960, 430, 110, 20, 30
LEAST, MOST = 1.0, 100_000.0
PANELS = (
    ("A topic of 3 partitions: created until all three take a record, slowest", "sequential", "writable"),
    ("A record acknowledged by a majority (acks=all) while the disk freezes, slowest", "produce", "acknowledged"),
)


def slowest(row, part, key):
    """Milliseconds, or None where anything failed."""
    results = row[part] if isinstance(row[part], list) else [row[part]]
    if any("error" in result for result in results):
        return None
    return max(result[key]["max_ms"] for result in results)


def label(ms):
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"


def svg(results):
    """The chart; a bar that reaches the end and says so stands for what did not come about at all."""
    scale = (WIDTH - LEFT - RIGHT) / log10(MOST / LEAST)
    at = lambda ms: LEFT + log10(min(max(ms, LEAST), MOST) / LEAST) * scale
    out, top = [], 8
    for title, part, key in PANELS:
        out.append(f'<text x="10" y="{top + 16}" class="title">{escape(title)}</text>')
        top += HEAD
        begin = top
        for result in results:
            for row in (row for row in result["rows"] if part in row):
                ms = slowest(row, part, key)
                end = at(MOST if ms is None else ms)
                name = f"{NAMES[result['cluster']]}: {row['situation']}"
                out += [
                    f'<text x="{LEFT - 8}" y="{top + 12}" class="side">{escape(name)}</text>',
                    f'<rect x="{LEFT}" y="{top}" width="{max(end - LEFT, 1):.1f}" height="{BAR - 5}" '
                    f'fill="{COLOURS[result["cluster"]]}"/>',
                    f'<text x="{end + 6:.1f}" y="{top + 12}">{"failed" if ms is None else label(ms)}</text>',
                ]
                top += BAR
        for power in range(0, 6):
            x = at(10**power)
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{begin - 4}" y2="{top}" stroke="#d0d7de"/>')
            out.append(f'<text x="{x:.1f}" y="{top + 12}" class="note">{label(10**power)}</text>')
        top += HEAD
    style = (
        "text{font:12px sans-serif;fill:#24292f}.title{font-weight:bold}.side{text-anchor:end}"
        ".note{font-size:10px;fill:#57606a;text-anchor:middle}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}">',
            f"<style>{style}</style>",
            f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>',
            *out,
            "</svg>\n",
        ]
    )
