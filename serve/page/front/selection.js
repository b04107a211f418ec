// What is selected, and what can be done with it: marks, albums, export, removal.

import { button, find, iconButton, make, notify, question, say } from './dom.js';
import { ask } from './client.js';
import { grid, refresh, selected, showView } from './app.js';
import { go } from './state.js';
import { counted, known, nameOf } from './words.js';

const MOST = 5000, AT_ONCE = 500;
const bar = find('.selection');
let last = null;   // the place that was picked last, which shift-click begins from

/** Selects an item or takes it out of the selection; with shift, all from the one picked last. */
export async function pick(item, place, event, source) {
  const on = !selected.has(item.id);
  if (event?.shiftKey && last && source) {
    event.preventDefault();
    for (const one of await between(last, place, source)) selected.set(one.id, one);
  } else if (on) {
    selected.set(item.id, item);
  } else {
    selected.delete(item.id);
  }
  last = place;
  paint();
}

async function between(from, to, source) {
  const [first, end] = [from, to].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const found = [];
  for (let section = first[0]; section <= end[0]; section += 1) {
    const begin = section === first[0] ? first[1] : 0, until = section === end[0] ? end[1] : source.sections[section].count - 1;
    for (let place = begin; place <= until && found.length < MOST; place += 1) {
      const item = source.item(section, place) || await source.when(section, place);
      if (item) found.push(item);
    }
  }
  return found;
}

/** Forgets the selection. */
export function clear() {
  selected.clear();
  last = null;
  paint();
}

function paint() {
  for (const tile of grid.tiles.values()) {
    if (!tile.item) continue;
    const on = selected.has(tile.item.id), box = find('.pick input', tile);
    tile.classList.toggle('picked', on);
    if (box) box.checked = on;
  }
  bar.hidden = !selected.size;
  if (!selected.size) { bar.replaceChildren(); return; }
  const items = () => [...selected.values()];
  const had = document.activeElement?.dataset?.key;
  const acts = [
    iconButton('close', 'Clear the selection (Escape)', clear),
    make('b', {}, counted(selected.size, 'selected', 'selected')),
    button('Search with them', searchWith, 'quiet-button', 'alike'),
    button('Favourite', () => mark(items(), { favourite: true }).then(done), 'quiet-button', 'heart'),
    button('Album', () => addToAlbum(items()), 'quiet-button', 'album'),
    button('Hide', () => mark(items(), { hidden: true }).then(done), 'quiet-button', 'hide'),
    button('Export', exported, 'quiet-button', 'down'),
    known().read_only ? null : button('Remove', () => remove(items()), 'quiet-button', 'bin'),
  ].filter(Boolean);
  acts.forEach((made, number) => { made.dataset.key = 'selection' + number; });
  bar.replaceChildren(...acts);
  if (had) find('[data-key="' + had + '"]', bar)?.focus();
}

function done(worked) {
  if (!worked) return;
  clear();
  showView();
}

function searchWith() {
  const terms = [...selected.values()].slice(0, 16).map(item => ({ item: item.id, modality: item.modality, name: nameOf(item), weight: 1 }));
  clear();
  go({ view: 'library', words: '', terms, nearest: false });
}

async function inParts(items, act) {
  const ids = items.map(item => item.id);
  for (let begin = 0; begin < ids.length; begin += AT_ONCE) await act(ids.slice(begin, begin + AT_ONCE));
}

/** Sets marks of items; whether that worked. */
export async function mark(items, marks) {
  try {
    await inParts(items, ids => ask('v1/marks', { method: 'POST', json: { ids, ...marks } }));
    for (const item of items) Object.assign(item, marks);
    say(counted(items.length, 'item was', 'items were') + ' ' + told(marks) + '.');
    for (const tile of grid.tiles.values()) if (tile.item && items.some(item => item.id === tile.item.id)) Object.assign(tile.item, marks);
    return true;
  } catch (error) {
    notify(error.title || 'This did not work', error.text || String(error), [], error);
    return false;
  }
}

const told = marks => 'favourite' in marks ? (marks.favourite ? 'marked as favourite' : 'no longer favourite') : marks.hidden ? 'hidden' : 'shown again';

/** Asks for an album and adds items to it. */
export async function addToAlbum(items) {
  try {
    const lists = (await ask('v1/albums')).data.filter(album => album.query === null && album.where === null);
    const choice = make('select', { 'aria-label': 'Album' }, ...lists.map(album => make('option', { value: album.id }, album.name)), make('option', { value: '' }, 'A new album'));
    const name = make('input', { type: 'text', placeholder: 'Name of the new album', 'aria-label': 'Name of the new album', maxLength: 200 });
    const fit = () => { name.hidden = choice.value !== ''; };
    choice.addEventListener('change', fit);
    fit();
    const chosen = await question('Add ' + counted(items.length, 'item', 'items') + ' to an album', [choice, name], [
      { label: 'Add', value: 'add', className: 'primary' }, { label: 'Cancel', value: null, className: 'quiet-button' },
    ]);
    if (!chosen) return;
    const ids = items.map(item => item.id);
    if (choice.value) await ask('v1/albums/' + choice.value, { method: 'PATCH', json: { add: ids } });
    else await ask('v1/albums', { method: 'POST', json: { name: name.value.trim() || 'Album', ids } });
    say(counted(ids.length, 'item is', 'items are') + ' in the album.');
    clear();
  } catch (error) {
    notify(error.title || 'This did not work', error.text || String(error), [], error);
  }
}

/** Removes items from the library after asking; files of indexed folders stay on their disk. */
export async function remove(items) {
  const chosen = await question('Remove ' + (items.length === 1 ? '“' + nameOf(items[0]) + '”' : counted(items.length, 'item', 'items')) + ' from the library?',
    make('p', {}, 'Files that were added on this page are deleted. Files of indexed folders stay where they are, and come back when their folder is indexed again.'), [
      { label: 'Remove', value: 'remove', className: 'primary' }, { label: 'Cancel', value: null, className: 'quiet-button' },
    ]);
  if (!chosen) return;
  let failed = null, count = 0;
  for (const item of items) {
    try {
      await ask('v1/items/' + item.id, { method: 'DELETE', patient: true });
      count += 1;
    } catch (error) {
      failed = error;
    }
  }
  if (failed) notify(failed.title || 'This did not work', failed.text || String(failed), [], failed);
  clear();
  await refresh().catch(() => null);
  go({ item: null });
  showView();
  say(counted(count, 'item was', 'items were') + ' removed.');
}

// ---- Export ----

async function exported() {
  const items = [...selected.values()];
  const chosen = await question('Export ' + counted(items.length, 'item', 'items'), make('p', {}, 'Paths are those on the server’s machine.'), [
    { label: 'Paths', value: 'paths', className: 'primary' }, { label: 'CSV', value: 'csv' }, { label: 'JSON', value: 'json' }, { label: 'Cancel', value: null, className: 'quiet-button' },
  ]);
  if (!chosen) return;
  const [name, type, text] = { paths: ['paths.txt', 'text/plain', paths], csv: ['items.csv', 'text/csv', csv], json: ['items.json', 'application/json', json] }[chosen];
  const link = make('a', { href: URL.createObjectURL(new Blob([text(items)], { type: type + ';charset=utf-8' })), download: 'crossbind-' + name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const COLUMNS = ['path', 'modality', 'start_s', 'end_s', 'date', 'score', 'probability'];
const paths = items => items.map(item => item.path).join('\n') + '\n';
const json = items => JSON.stringify(items.map(({ thumbnail, media, object, ...rest }) => rest), null, 2);
const csv = items => [COLUMNS, ...items.map(item => COLUMNS.map(name => item[name] ?? ''))].map(row => row.map(cell).join(',')).join('\r\n') + '\r\n';

/** A value as a cell of CSV; what a spreadsheet would take for a formula is kept as text. */
function cell(value) {
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

