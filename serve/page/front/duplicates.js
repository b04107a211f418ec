// Files that are the same or nearly so, in groups: one is kept, the others can be hidden. Nothing on a disk is deleted.

import { button, make, notify, panel, say } from './dom.js';
import { ask, withParameters } from './client.js';
import { go } from './state.js';
import { bytes, counted, dateWords, folderOf, known, nameOf } from './words.js';
import { pictureOf } from './tile.js';

const PAGE = 30;

export async function show(sheet, shown, current) {
  sheet.replaceChildren(panel('', 'Comparing…', 'Every file is compared with its nearest ones. For many files this takes a while, once.'));
  const list = make('div', { className: 'groups' });
  let after = 0;
  const more = button('More groups', () => load(), 'secondary');
  const load = async () => {
    more.disabled = true;
    try {
      const answer = await ask(withParameters('v1/duplicates', { after, limit: PAGE }), { patient: true });
      if (!current()) return;
      if (!after && !answer.data.length) {
        sheet.replaceChildren(panel('', 'No duplicates', 'No two files are the same or nearly so.'));
        return;
      }
      if (!after) sheet.replaceChildren(make('p', { className: 'quiet' }, counted(answer.total, 'group', 'groups') + ' of files that are the same or nearly so, largest first. Hiding deletes nothing: hidden files stay on their disk and in the library.'), list, make('p', { className: 'center' }, more));
      list.append(...answer.data.map(group));
      after = answer.next;
      more.hidden = !answer.has_more;
    } catch (error) {
      if (!after) throw error;
      notify(error.title || 'This did not work', error.text || String(error), [], error);
    } finally {
      more.disabled = false;
    }
  };
  await load();
}

function group({ cosine, files }) {
  const name = 'keep-' + files[0].id;
  const same = files.length === 1;
  const made = make('section', { className: 'card' });
  const rows = files.map((file, place) => {
    const radio = make('input', { type: 'radio', name, value: file.id, checked: place === 0, 'aria-label': 'Keep ' + file.path });
    const picture = make('button', { type: 'button', className: 'cover', 'aria-label': 'Show ' + nameOf(file) }, make('img', { src: pictureOf(file), alt: '', loading: 'lazy' }));
    picture.addEventListener('click', () => go({ item: file.id }));
    const paths = [file.path, ...file.also].map(path => make('code', { dir: 'auto' }, path));
    return make('li', {}, picture, make('label', {}, same ? null : radio, make('b', { dir: 'auto' }, nameOf(file))), make('small', {}, [file.size_bytes ? bytes(file.size_bytes) : '', dateWords(file.date)].filter(Boolean).join(', ')), make('small', { className: 'paths', title: folderOf(file) }, ...paths));
  });
  const hide = button('Keep the chosen one, hide ' + counted(files.length - 1, 'other', 'others'), async () => {
    const kept = Number(made.querySelector('input:checked').value);
    const ids = files.map(file => file.id).filter(id => id !== kept);
    try {
      await ask('v1/marks', { method: 'POST', json: { ids, hidden: true } });
      made.remove();
      say(counted(ids.length, 'file is', 'files are') + ' hidden.');
    } catch (error) {
      notify(error.title || 'This did not work', error.text || String(error), [], error);
    }
  }, 'secondary');
  made.append(make('h2', {}, same ? counted(files[0].also.length + 1, 'copy', 'copies') + ' of one file' : counted(files.length, 'file', 'files') + (cosine >= 0.9999 ? ' with the same content' : ', alike to ' + Math.floor(cosine * 1000) / 10 + ' %')), make('ul', {}, ...rows), ...(same || known().read_only ? [] : [hide]));
  return made;
}
