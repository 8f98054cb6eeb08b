"""One HTML file that loads nothing from elsewhere: its frame, tables and pictures. What it says is up to the caller."""

import base64
import html
from collections.abc import Sequence

__all__ = ["page", "paragraph", "picture", "table"]

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, sans-serif; color: #1c1c1e; background: #fafafa; margin: 0; }
main { max-width: 1640px; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.protocol { background: #eef3f8; border-left: 4px solid #0072b2; padding: .6rem .9rem; }
.note, .legend { color: #55555a; font-size: .9rem; }
.scroll { overflow-x: auto; background: #fff; border: 1px solid #e2e2e6; border-radius: 6px; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eeeeee; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 600; }
th { color: #55555a; font-weight: 600; white-space: normal; vertical-align: bottom; }
tr:last-child td { border-bottom: 0; }
figure { margin: 1rem 0; background: #fff; border: 1px solid #e2e2e6; border-radius: 6px; padding: .6rem; }
figure img { max-width: min(100%, 1080px); height: auto; display: block; margin: 0 auto; }
.bad { background: #fdf1e7; border-left: 4px solid #d55e00; padding: .6rem .9rem; }
pre { background: #fff; border: 1px solid #e2e2e6; border-radius: 6px; padding: .8rem; overflow-x: auto;
  font-size: .84rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML file.

    Args:
        title: plain text, also the first heading.
        parts: pieces of HTML, one below the other.
    """
    name, body = html.escape(title), "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1" />\n<title>{name}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{name}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def paragraph(text: str, role: str = "", tag: str = "p") -> str:
    """Plain text as a paragraph, or as another element.

    >>> paragraph("a < b", "note")
    '<p class="note">a &lt; b</p>'
    """
    kind = f' class="{role}"' if role else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def picture(description: str, content: bytes, media: str) -> str:
    """A picture inside the file, with its description below.

    Args:
        description: plain text.
        content: the picture.
        media: its type, such as `image/png`.
    """
    # As an image, not inline: the ids inside one SVG cannot meet those of another.
    data = base64.b64encode(content).decode()
    alt = html.escape(description)
    return f'<figure><img alt="{alt}" src="data:{media};base64,{data}" /><figcaption>{alt}</figcaption></figure>'


def table(rows: Sequence[dict[str, str]]) -> str:
    """A table of plain cells: column title → text, one dictionary a line; nothing without lines."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
