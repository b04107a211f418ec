// What this server has: the model, the library, the limits; what scores mean; privacy; keys.

import { make } from './dom.js';
import { call } from './client.js';
import { known, number, plural } from './words.js';

const KEYS = [
  ['/', 'go to the search box'], ['Enter', 'search; on an item: show it large'], ['arrows', 'from item to item; in the large view: previous and next'],
  ['m', 'more like the item'], ['l', 'less like it'], ['a', 'add it to the query'], ['x', 'select it'], ['f', 'favourite'],
  ['+ − 0', 'in the large view: enlarge, reduce, whole'], ['Delete', 'on a term: remove it'], ['Escape', 'close; clear the selection'],
];

export async function show(sheet, shown, current) {
  const told = await call('about');
  if (!current()) return;
  const pairs = rows => make('dl', { className: 'told' }, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
  const part = (title, ...content) => make('section', { className: 'card' }, make('h2', {}, title), ...content);
  const table = make('table', {}, make('thead', {}, make('tr', {}, make('th', { scope: 'col' }, 'kind'), make('th', { scope: 'col' }, 'items'))),
    make('tbody', {}, ...Object.entries(told.items).map(([name, count]) => make('tr', {}, make('td', {}, plural(name)), make('td', {}, number(count))))),
    make('tfoot', {}, make('tr', {}, make('td', {}, 'files'), make('td', {}, number(told.files)))));
  sheet.replaceChildren(make('div', { className: 'cards' },
    part('Model', pairs(told.model)),
    part('Library', table, make('p', {}, 'A long video or recording is several items, a few seconds each, and a video’s sound track counts as sound. The library view counts files.')),
    part('What a score means', make('p', {}, 'Each kind of media keeps to a region of its own, so bare similarities (cosines) of pictures and sounds cannot be compared. A score can: it is how many standard deviations a result lies above the usual item of its kind, for your query. 0 is any item, 2 may be chance among some hundred items, 5 and more stands out. Where the model is calibrated, a probability says how likely a result is what you asked for; what is below one half is folded away as “probably not”.')),
    part('Limits', pairs(told.limits)),
    part('Privacy', make('p', {}, 'What you search with is turned into a vector and forgotten: no file is kept, neither on disk nor in a session. Your query is in the address of this page behind the #, which browsers send to nobody. This page loads nothing from other hosts.'),
      known().keys ? make('form', { method: 'post', action: 'logout' }, make('button', { className: 'secondary' }, 'Sign out')) : null),
    part('Keys', make('dl', { className: 'told keys' }, ...KEYS.flatMap(([key, text]) => [make('dt', {}, make('kbd', {}, key)), make('dd', {}, text)])))));
}
