"""The sign-in form: a page without scripts."""

from __future__ import annotations

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
"""The content security policy of the form."""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Crossbind: sign in</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0 1rem }
form { display: grid; gap: .75rem; width: min(22rem, 100%) } input, button { font: inherit; padding: .6rem }
p { color: #b00020; margin: 0 } @media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }
</style></head><body><form method="post" action="/login"><h1>Crossbind</h1>
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>MESSAGE
<button>Sign in</button></form></body></html>
"""
"""The sign-in page, which has no script and loads nothing."""


def page(message: str, address: str) -> bytes:
    """The form, which sends the key to `address`; `message` is HTML below it."""
    return _PAGE.replace("MESSAGE", message).replace('action="/login"', f'action="{address}"').encode()
