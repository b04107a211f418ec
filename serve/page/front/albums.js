// The albums: lists that people made, and saved queries and filters.

import { button, icon, iconButton, make, notify, panel, question } from './dom.js';
import { ask, withParameters } from './client.js';
import { showView } from './app.js';
import { go } from './state.js';
import { counted, known } from './words.js';
import { pictureOf } from './tile.js';

const COVERS = 4;

export async function show(sheet, shown, current) {
  const [albums, tags] = await Promise.all([ask('v1/albums'), ask('v1/tags')]);
  if (!current()) return;
  const parts = [];
  if (!albums.data.length) {
    parts.push(panel('', 'No albums yet', 'Select items in the library and choose Album, or save a query as an album.'));
  }
  parts.push(make('ul', { className: 'albums' }, ...albums.data.map(album => make('li', {}, card(album)))));
  if (!known().read_only) parts.push(make('p', { className: 'center' }, button('Save a query as an album', saved, 'secondary', 'album')));
  if (tags.data.length) {
    parts.push(make('h2', {}, 'Tags'), make('div', { className: 'acts' }, ...tags.data.map(tag => button('# ' + tag.name + (tag.count === null ? '' : ' · ' + tag.count), () => go({ view: 'library', tag: [tag.name] }), 'chip'))));
  }
  sheet.replaceChildren(...parts);
}

function card(album) {
  const covers = make('span', { className: 'covers', 'aria-hidden': 'true' });
  const what = album.query ? 'query: ' + album.query : album.where ? 'filter: ' + album.where : counted(album.count, 'item', 'items');
  const open = make('button', { type: 'button', className: 'album' }, covers, make('b', { dir: 'auto' }, album.name), make('small', { dir: 'auto' }, what));
  open.addEventListener('click', () => go({ view: 'library', ...(album.query ? { words: album.query, where: album.where || '' } : { album: [album.name] }) }));
  if (!album.query) {
    const where = "album = '" + album.name.replaceAll("'", "''") + "'";
    ask(withParameters('v1/items', { where, files: 'true', sort: 'date', order: 'desc', limit: COVERS })).then(({ data }) => {
      covers.append(...data.map(item => make('img', { src: pictureOf(item), alt: '', loading: 'lazy' })));
    }, () => null);
  } else {
    covers.append(icon('search'));
  }
  const acts = known().read_only ? [] : [iconButton('bin', 'Delete the album ' + album.name, () => remove(album))];
  return make('div', { className: 'album-card' }, open, ...acts);
}

async function saved() {
  const name = make('input', { type: 'text', placeholder: 'Name', 'aria-label': 'Name of the album', maxLength: 200 });
  const query = make('input', { type: 'text', placeholder: 'Words to search for', 'aria-label': 'Words to search for' });
  const where = make('input', { type: 'text', placeholder: 'Only where (can be left out)', 'aria-label': 'Only where' });
  const chosen = await question('A query that is made anew whenever the album is opened', [name, query, where], [{ label: 'Save', value: 'save', className: 'primary' }, { label: 'Cancel', value: null, className: 'quiet-button' }]);
  if (!chosen) return;
  const body = { name: name.value.trim(), ...(query.value.trim() ? { query: query.value.trim() } : {}), ...(where.value.trim() ? { where: where.value.trim() } : {}) };
  change(() => ask('v1/albums', { method: 'POST', json: body }));
}

async function remove(album) {
  const chosen = await question('Delete the album “' + album.name + '”?', make('p', {}, 'Its items stay in the library.'), [{ label: 'Delete', value: 'delete', className: 'primary' }, { label: 'Cancel', value: null, className: 'quiet-button' }]);
  if (chosen) change(() => ask('v1/albums/' + album.id, { method: 'DELETE' }));
}

async function change(act) {
  try {
    await act();
    showView();
  } catch (error) {
    notify(error.title || 'This did not work', error.text || String(error), [], error);
  }
}
