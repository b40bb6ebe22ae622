"""What a notebook shows: HTML, and text that says the same where no HTML is shown."""

from html import escape


class Shown:
    """HTML, and the text of the same."""

    def __init__(self, html, text):
        self.html, self.text = html, text

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        return self.text


def framed(color, title, lines, more=""):
    """A box as `Shown`: a title, and lines `(what, text)`, beside a bar of a colour.

    Args:
        more: HTML below the lines, which the text has not.
    """
    body = "".join(f"<div><b>{escape(what, quote=False)}:</b> {escape(said)}</div>"
                   for what, said in lines)
    html = (f'<div style="border-left: 4px solid {color}; padding: 0 0 0 0.8em; '
            f'margin: 0.8em 0; text-align: left; white-space: normal">'
            f'<div style="color: {color}"><b>{escape(title)}</b></div>{body}{more}</div>')
    return Shown(html, "\n".join([title, *(f"  {what}: {said}" for what, said in lines)]))
