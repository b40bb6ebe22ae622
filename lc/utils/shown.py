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


def framed(color, title, body):
    """HTML of a box: a title, which is text, and a body of HTML beside a bar of a colour."""
    return (f'<div style="border-left: 4px solid {color}; padding: 0 0 0 0.8em; '
            f'margin: 0.8em 0; text-align: left; white-space: normal">'
            f'<div style="color: {color}"><b>{escape(title)}</b></div>{body}</div>')
