// Adding files: what is dropped is uploaded, one after the other, with progress, reasons and another try; and what
// the library could not use.

import { button, details, find, icon, make, notify, panel } from './dom.js';
import { Problem, ask, health, lazy, sentence } from './client.js';
import { refresh } from './app.js';
import { go } from './state.js';
import { bytes, counted, known, nameOf } from './words.js';
import { pictureOf } from './tile.js';

const AT_ONCE = 2, MOST_ROWS = 200;

const uploads = [];   // {file, state: waiting|sending|added|failed|cancelled, share, items, problem, request}
let place = null;

export async function show(sheet, shown, current) {
  if (known().read_only) {
    sheet.replaceChildren(panel('', 'This library cannot be changed', 'The server was started with --read-only.'));
    return;
  }
  const input = make('input', { type: 'file', multiple: true, hidden: true, className: 'add-files', 'aria-label': 'Files to add', tabIndex: -1 });
  input.addEventListener('change', () => { addFiles([...input.files]); input.value = ''; });
  place = make('div', { className: 'uploads' });
  const rest = make('div', { className: 'rest' });
  sheet.replaceChildren(
    panel('drop-here', 'Add to the library', 'Drop pictures, videos, sounds, texts, depth maps, thermal images or motion recordings anywhere on this page. Each may have up to ' + bytes(known().max_bytes) + '.', button('Choose files', () => input.click(), 'primary', 'upload'), input),
    place, rest);
  paint();
  const { showIndexing } = await lazy('./indexing.js');
  if (current()) await showIndexing(rest, current);
}

/** Uploads files, and shows how it goes. */
export function addFiles(files) {
  for (const file of files) {
    const upload = { file, state: 'waiting', share: 0 };
    if (file.size > known().max_bytes) Object.assign(upload, { state: 'failed', problem: new Problem('failed', 'This is too large', 'It has ' + bytes(file.size) + '; the server takes up to ' + bytes(known().max_bytes) + '.') });
    uploads.unshift(upload);
  }
  next();
  paint();
}

function next() {
  const sending = uploads.filter(upload => upload.state === 'sending').length;
  const waiting = uploads.filter(upload => upload.state === 'waiting').slice(-(AT_ONCE - sending || 0));
  for (const upload of sending < AT_ONCE ? waiting : []) send(upload);
}

/** Sends one file. XMLHttpRequest says how much has been sent, which fetch does not. */
function send(upload) {
  const form = new FormData(), request = new XMLHttpRequest();
  form.append('file', upload.file, upload.file.name);
  Object.assign(upload, { state: 'sending', share: 0, request, problem: null });
  request.upload.addEventListener('progress', event => { upload.share = event.lengthComputable ? event.loaded / event.total : 0; paintRow(upload); });
  const end = (state, more = {}) => {
    Object.assign(upload, { state, ...more });
    paint();
    next();
    if (!uploads.some(one => ['waiting', 'sending'].includes(one.state))) refresh().catch(() => null);
  };
  request.addEventListener('load', () => {
    let told = {};
    try { told = JSON.parse(request.responseText); } catch { /* the status says enough */ }
    if (request.status === 201) { end('added', { items: told.data }); return; }
    if (request.status === 429 && (upload.tries = (upload.tries || 0) + 1) <= 5) {
      upload.state = 'resting';
      setTimeout(() => { if (upload.state === 'resting') { upload.state = 'waiting'; next(); paint(); } }, 1000 * (Number(request.getResponseHeader('retry-after')) || 2));
      paint();
      return;
    }
    const error = told.error || {};
    end('failed', { problem: new Problem('failed', error.code === 'unusable_medium' ? 'It cannot be used' : 'The server refused it', sentence(error.message || 'It gave no reason'), request.status + ' ' + (error.code || '') + ': ' + (error.message || '')) });
  });
  request.addEventListener('error', () => { health.doubt(); end('failed', { problem: new Problem('gone', 'The server does not answer', 'The file was not added.') }); });
  request.addEventListener('abort', () => end('cancelled'));
  request.open('POST', 'v1/items');
  request.send(form);
}

function paint() {
  if (!place?.isConnected) return;
  if (!uploads.length) { place.replaceChildren(); return; }
  const count = state => uploads.filter(upload => upload.state === state).length;
  const left = count('waiting') + count('sending') + count('resting');
  const summary = make('p', { role: 'status', className: 'summary' }, [counted(count('added'), 'file', 'files') + ' added', count('failed') ? counted(count('failed'), 'file', 'files') + ' could not be used' : '', left ? counted(left, 'file', 'files') + ' to go' : ''].filter(Boolean).join(', '));
  const acts = make('div', { className: 'acts' },
    left ? button('Cancel all', () => uploads.forEach(cancel), 'secondary') : null,
    count('failed') ? button('Try the failed ones again', () => { for (const upload of uploads) if (upload.state === 'failed') upload.state = 'waiting'; next(); paint(); }, 'secondary') : null,
    !left && count('added') ? button('See the library', () => go({ view: 'library', sort: 'added', order: 'desc' }), 'secondary') : null);
  place.replaceChildren(summary, acts, make('ul', {}, ...uploads.slice(0, MOST_ROWS).map(rowOf)));
}

function rowOf(upload) {
  const { file, state, items, problem } = upload;
  const shown = items && items.length ? make('img', { src: pictureOf(items[0]), alt: '' }) : icon('file');
  const words = { waiting: 'waiting', resting: 'the server is busy; it is tried again', sending: 'sending', cancelled: 'cancelled', failed: problem ? problem.title + ': ' + problem.text : 'failed', added: items ? counted(items.length, 'item', 'items') : '' }[state];
  const meter = state === 'sending' ? make('progress', { max: 1, value: upload.share, 'aria-label': 'Sent of ' + file.name }) : null;
  const act = {
    added: () => button('Delete', () => remove(upload), 'quiet-button'),
    failed: () => button('Try again', () => { upload.state = 'waiting'; next(); paint(); }, 'quiet-button'),
  }[state] || (['waiting', 'sending', 'resting'].includes(state) ? () => button('Cancel', () => cancel(upload), 'quiet-button') : () => null);
  const made = act();
  made?.setAttribute('aria-label', made.textContent + ' ' + file.name);
  upload.row = make('li', { className: state }, shown, make('b', { dir: 'auto' }, file.name), make('small', {}, bytes(file.size)), make('div', { className: 'what' }, words, problem ? details(problem) : null), meter, made);
  return upload.row;
}

function paintRow(upload) {
  const meter = upload.row && find('progress', upload.row);
  if (meter) meter.value = upload.share;
}

function cancel(upload) {
  if (upload.state === 'sending') upload.request.abort();
  else if (['waiting', 'resting'].includes(upload.state)) { upload.state = 'cancelled'; paint(); }
}

async function remove(upload) {
  try {
    await ask('v1/items/' + upload.items[0].id, { method: 'DELETE', patient: true });
    uploads.splice(uploads.indexOf(upload), 1);
    paint();
    refresh().catch(() => null);
  } catch (error) {
    notify(error.title || nameOf(upload.items[0]) + ' could not be deleted', error.text || String(error), [], error);
  }
}
