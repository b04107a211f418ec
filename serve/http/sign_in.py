"""The sign-in form: a page without scripts."""

from __future__ import annotations

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""The content security policy of the form."""
WRONG = '<p id="wrong" role="alert">That is not a key of this server.</p>'
"""What the form says below a wrong key."""
# The drawing on the form, and the one in the browser's tab.
_MARK = (
    '<svg viewBox="0 0 32 32" width="44" height="44" aria-hidden="true" fill="none" stroke="currentColor" '
    'stroke-width="2.6" stroke-linecap="round"><path d="M9 4c0 10 14 14 14 24M23 4C23 14 9 18 9 28"/>'
    '<circle cx="16" cy="16" r="3"/></svg>'
)
"""The mark of Crossbind, as SVG."""
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32' fill='none' stroke='%232f4bd8' "
    "stroke-width='3' stroke-linecap='round'%3E%3Cpath d='M9 4c0 10 14 14 14 24M23 4C23 14 9 18 9 28'/%3E%3C/svg%3E"
)
"""The mark as the page's icon."""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Sign in to Crossbind</title><link rel="icon" href="ICON">
<style>
:root { --paper: #f6f6f4; --sheet: #fff; --line: #85888f; --ink: #1b1c1f; --quiet: #5d6068; --accent: #2f4bd8;
  --on: #fff; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --paper: #101114; --sheet: #191b20; --line: #7d818c; --ink: #e9eaee;
  --quiet: #a2a6b0; --accent: #8d9dff; --on: #10131f; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: grid; font: 1rem/1.5 system-ui, sans-serif;
  place-items: center; padding: 1rem; background: var(--paper); color: var(--ink) }
main { width: min(25rem, 100%); padding: 2.25rem 2rem 2rem; border-radius: 20px; background: var(--sheet);
  box-shadow: 0 1px 2px #0001, 0 14px 44px #0000001a }
svg { color: var(--accent); display: block } h1 { margin: .9rem 0 .2rem; font-size: 1.5rem; letter-spacing: -.015em }
main > p { margin: 0 0 1.4rem; color: var(--quiet) } form { display: grid; gap: .5rem } label { font-weight: 600 }
input, button { font: inherit; min-height: 3rem; border-radius: 11px; padding: 0 .9rem }
input { border: 1px solid var(--line); background: var(--paper); color: var(--ink); width: 100% }
button { margin-top: .6rem; border: 0; background: var(--accent); color: var(--on); font-weight: 650; cursor: pointer }
button:hover { filter: brightness(1.07) } :focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
form p { margin: 0; color: var(--bad); font-weight: 550 }
</style></head><body><main>MARK<h1>Sign in to Crossbind</h1>
<p>This library is private. Whoever runs the server has the key.</p>
<form method="post" action="/login"><label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocusDESCRIBED>MESSAGE
<button>Sign in</button></form></main></body></html>
"""
"""The sign-in page, which has no script and loads nothing."""


def page(message: str, address: str) -> bytes:
    """The form, which sends the key to `address`; `message` is "" or `WRONG`."""
    described = ' aria-invalid="true" aria-describedby="wrong"' if message else ""
    html = _PAGE.replace("MARK", _MARK).replace("ICON", _ICON).replace("DESCRIBED", described)
    return html.replace("MESSAGE", message).replace('action="/login"', f'action="{address}"').encode()
