// The behaviour of the page: the body of a function (element, trigger, props, server, upload, watch) that gradio calls
// once page.html stands in `element`. Python's functions are `server.overview`, `.search`, `.embed`, `.details`, `.explore`,
// `.about`. Text that comes from the server enters the page as text, except `html`, which serve/views.py has escaped.

const find = (selector, from = element) => from.querySelector(selector);
const all = (selector, from = element) => [...from.querySelectorAll(selector)];
const words = find('.words'), terms = find('.terms'), results = find('.results'), status = find('.status');
const dialog = find('.dialog'), fileInput = find('.file'), recorder = find('.recorder'), notices = find('.notices');
const WAIT_MS = 250, EMPTY_POLL_MS = 4000, LONGEST_RECORDING_S = 30, RETRIES = 3;

const query = [];          // {words} or {item, name, modality} or {vector, name, modality, file} or {pending, name}; each with weight
const wanted = new Set();  // kinds of results; empty: all
let library = null;        // what server.overview told
let latest = 0;            // the number of the last search; answers to earlier ones are dropped
let mapRevision = null;

function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && !key.startsWith('aria-')) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', '#i-' + (find('#i-' + CSS.escape(name)) ? name : 'file'));  // a modality of one's own has no icon
  svg.append(use);
  return svg;
}

const signed = weight => (weight < 0 ? '−' : '+') + Math.abs(weight).toFixed(1);
const kindOf = modality => (library && library.names[modality] || [modality, modality]);

async function call(name, data) {
  try {
    return await server[name](data);
  } catch (error) {
    return { problem: unreachable(String(error)) };
  }
}

function unreachable(message) {
  if (/too many requests/i.test(message)) {
    return { kind: 'busy', title: 'The server is busy', text: 'It has as much to do as it takes at once.', retry_after_s: 2 };
  }
  if (/too large|content too/i.test(message)) {
    return { kind: 'failed', title: 'This is too large', text: 'The server takes up to ' + megabytes(library.max_bytes) + ' at once.' };
  }
  if (/unauthorized|forbidden/i.test(message)) {
    return { kind: 'failed', title: 'You are no longer signed in', text: 'Load the page again to sign in.' };
  }
  return { kind: 'failed', title: 'The server does not answer', text: 'See whether it still runs and whether you are online, then try again. Your query stays as it is.' };
}

const megabytes = bytes => Math.round(bytes / 2 ** 20) + ' MB';

// ---- The query: words in the box, and terms with weights ----

function showTerms() {
  terms.replaceChildren(...query.map((term, place) => {
    const label = term.words !== undefined ? '“' + term.words + '”' : term.name;
    const slider = make('input', {
      type: 'range', min: '-1', max: '1', step: '0.1', value: String(term.weight), className: 'weight',
      'aria-label': 'Weight of ' + label, 'aria-valuetext': signed(term.weight),
    });
    const item = make('li', { className: 'term' },
      picture(term),
      make('span', { className: 'label', title: label }, label),
      term.pending ? make('span', { className: 'spin', role: 'img', 'aria-label': 'being read' }) : readAs(term),
      slider,
      make('output', {}, signed(term.weight)),
      make('button', { type: 'button', className: 'remove', 'aria-label': 'Remove ' + label, title: 'Remove' }, '×'),
    );
    paint(item, term);
    slider.addEventListener('input', () => {
      term.weight = Math.round(slider.value * 10) / 10;
      slider.setAttribute('aria-valuetext', signed(term.weight));
      find('output', item).textContent = signed(term.weight);
      paint(item, term);
    });
    slider.addEventListener('change', search);
    find('.remove', item).addEventListener('click', () => remove(place));
    item.addEventListener('keydown', event => {
      if (event.key === 'Delete' && event.target.tagName !== 'SELECT') remove(place);
    });
    return item;
  }));
}

function paint(item, term) {
  item.classList.toggle('negative', term.weight < 0);
  item.classList.toggle('ignored', term.weight === 0);
}

function picture(term) {
  const modality = term.words !== undefined ? 'text' : term.modality || 'file';
  let address = term.preview;
  if (term.item !== undefined && ['image', 'video'].includes(term.modality)) address = 'v1/items/' + term.item + '/thumbnail';
  if (!address) return icon(modality);
  const image = make('img', { src: address, alt: '' });
  image.addEventListener('error', () => image.replaceWith(icon(modality)));
  return image;
}

function readAs(term) {
  // What a file is cannot always be told from its content: a depth map looks like any picture.
  if (!term.file || term.modality === 'text') return null;
  const select = make('select', { 'aria-label': 'Read ' + term.name + ' as', title: 'Read this file as' },
    ...library.modalities.map(name => make('option', { value: name, selected: name === term.modality }, kindOf(name)[0])));
  select.addEventListener('change', () => embed(term, select.value));
  return select;
}

function remove(place) {
  const [gone] = query.splice(place, 1);
  if (gone.preview) URL.revokeObjectURL(gone.preview);
  showTerms();
  (all('.remove', terms)[Math.min(place, query.length - 1)] || words).focus();
  search();
}

function addWords(weight) {
  const text = words.value.trim();
  if (!text) {
    words.focus();
    say(weight > 0 ? 'Type the words first, then make them a term.' : 'Type the words to subtract first.');
    return;
  }
  query.push({ words: text, weight });
  words.value = '';
  showTerms();
  words.focus();
  search();
}

async function addFiles(files) {
  openTab('search');
  for (const file of files) {
    if (file.size > library.max_bytes) {
      notify(file.name + ' is too large', 'It has ' + megabytes(file.size) + '; the server takes up to ' + megabytes(library.max_bytes) + '.');
      continue;
    }
    const preview = file.type.startsWith('image/') ? URL.createObjectURL(file) : null;
    const term = { pending: true, name: file.name, file, preview, weight: 1 };
    query.push(term);
    showTerms();
    await embed(term, '');
  }
}

async function embed(term, modality) {
  term.pending = true;
  showTerms();
  const answer = await call('embed', { binary: true, data: { file: term.file, modality } });
  term.pending = false;
  if (!query.includes(term)) return;  // removed meanwhile
  if (answer.problem) {
    const problem = answer.problem;
    const again = [{ label: 'Try again', act: () => { query.push(term); embed(term, modality); } }];
    if (!term.vector) query.splice(query.indexOf(term), 1);
    notify(problem.title, problem.text, problem.kind === 'busy' ? again : (problem.read_as || []).map(name => ({
      label: 'Read it as ' + kindOf(name)[0],
      act: () => { if (!query.includes(term)) query.push(term); embed(term, name); },
    })));
    showTerms();
    return;
  }
  Object.assign(term, { vector: answer.vector, modality: answer.modality });
  showTerms();
  search();
}

function addItem(card, weight, alone) {
  const term = { item: Number(card.dataset.id), name: card.dataset.name, modality: card.dataset.modality, weight };
  if (alone) {
    query.length = 0;
    words.value = '';
  }
  const known = query.find(other => other.item === term.item);
  if (known) known.weight = weight;
  else query.push(term);
  if (dialog.open) dialog.close();
  openTab('search');
  showTerms();
  search().then(() => {
    const again = find('.card[data-id="' + term.item + '"]') || find('.card');
    if (again && !alone) again.focus({ preventScroll: true });
    else if (alone) { find('.crossbind').scrollIntoView({ block: 'start' }); const first = find('.card'); if (first) first.focus({ preventScroll: true }); }
  });
}

// ---- Searching ----

function say(text) {
  status.textContent = text;
}

function asked() {
  const sent = query.filter(term => !term.pending && term.weight !== 0).map(({ words: text, item, vector, weight }) => ({ words: text, item, vector, weight }));
  const typed = words.value.trim();
  if (typed) sent.unshift({ words: typed, weight: 1 });
  return sent;
}

async function search(event, attempt = 0) {
  const number = ++latest;
  const sent = asked();
  if (!sent.length) {
    results.removeAttribute('aria-busy');
    if (!query.length) showStart();
    return;
  }
  const began = performance.now();
  results.setAttribute('aria-busy', 'true');
  const waiting = setInterval(() => {
    if (number !== latest) return clearInterval(waiting);
    const seconds = (performance.now() - began) / 1000;
    if (!find('.skeleton', results)) results.replaceChildren(skeleton());
    say(seconds < 2 ? 'Searching…' : 'Still searching: ' + Math.round(seconds) + ' s. The first search after a start loads the model.');
  }, WAIT_MS);
  const answer = await call('search', {
    terms: sent, want: wanted.size ? [...wanted] : null, where: find('.where').value, k: Number(find('.k').value),
  });
  clearInterval(waiting);
  if (number !== latest) return;
  results.removeAttribute('aria-busy');
  showWhereError(answer.where_error);
  if (answer.where_error) {
    say('The filter cannot be read.');
    results.replaceChildren();
    return;
  }
  if (answer.problem) {
    say('');
    showProblem(answer.problem, attempt, number);
    return;
  }
  if (!answer.count) {
    say('Nothing found.');
    results.replaceChildren(nothing());
    return;
  }
  const ms = performance.now() - began;
  say(answer.notes.map(note => note + '. ').join('') + (answer.unlikely ? 'Nothing here looks like that. The nearest: ' : '') + answer.count + (answer.count === 1 ? ' result' : ' results') + ', best first, in ' + (ms < 1000 ? Math.ceil(ms) + ' ms' : (ms / 1000).toFixed(1) + ' s'));
  results.innerHTML = answer.html;
}

function skeleton() {
  return make('ul', { className: 'cards skeleton', 'aria-hidden': 'true' }, ...Array.from({ length: 8 }, () => make('li', {}, make('div', { className: 'card' }))));
}

function panel(className, title, text, ...more) {
  return make('div', { className: 'state ' + className }, make('h2', {}, title), make('p', {}, text), ...more);
}

function button(label, act, className = '') {
  const made = make('button', { type: 'button', className }, label);
  made.addEventListener('click', act);
  return made;
}

function showProblem(problem, attempt, number) {
  const again = button('Search again', () => search(), 'primary');
  const shown = panel(problem.kind, problem.title, problem.text, again);
  results.replaceChildren(shown);
  if (problem.kind !== 'busy' || attempt >= RETRIES) return;
  let left = Math.max(1, Math.ceil(problem.retry_after_s || 1)) + attempt;
  const tick = () => {
    if (number !== latest) return;
    if (left <= 0) { search(null, attempt + 1); return; }
    say('Searching again in ' + left + ' s.');
    left -= 1;
    setTimeout(tick, 1000);
  };
  tick();
}

function nothing() {
  const filtered = wanted.size || find('.where').value.trim();
  if (!filtered) return panel('nothing', 'Nothing found', 'The library has nothing else to compare this with.');
  const parts = [];
  if (wanted.size) parts.push('only ' + [...wanted].map(name => kindOf(name)[1]).join(', '));
  if (find('.where').value.trim()) parts.push('only where ' + find('.where').value.trim());
  return panel('nothing', 'Nothing passes these filters', 'You asked for ' + parts.join(' and ') + '.', button('Clear the filters', () => {
    wanted.clear();
    find('.where').value = '';
    showWanted();
    search();
  }, 'primary'));
}

function showWhereError(error) {
  const shown = find('.where-error');
  shown.hidden = !error;
  shown.textContent = error || '';
  find('.where').toggleAttribute('aria-invalid', Boolean(error));
  if (error) find('.more').open = true;
}

function notify(title, text, actions = []) {
  const notice = make('div', { className: 'notice' }, make('p', {}, make('b', {}, title + '. '), text));
  for (const action of actions) notice.append(button(action.label, () => { notice.remove(); action.act(); }));
  const close = button('×', () => notice.remove(), 'remove');
  close.setAttribute('aria-label', 'Dismiss');
  notice.append(close);
  notices.append(notice);
}

// ---- What the library holds: kinds, examples, the empty library ----

async function refresh() {
  const answer = await call('overview', null);
  if (answer.problem) {
    results.replaceChildren(panel('failed', answer.problem.title, answer.problem.text, button('Try again', refresh, 'primary')));
    return;
  }
  library = answer;
  find('.holdings').textContent = library.files.toLocaleString('en') + (library.files === 1 ? ' file' : ' files') + ' · ' + library.model;
  find('.where-help').innerHTML = library.where_help;
  showWanted();
  const takes = { microphone: 'audio', camera: 'image' };
  for (const [source, modality] of Object.entries(takes)) {
    const button = find('[data-do="' + source + '"]');
    button.hidden = !library.modalities.includes(modality);
  }
  words.disabled = !library.modalities.includes('text');
  if (words.disabled) words.placeholder = 'Drop a file here (this model reads no text)';
  if (!asked().length) showStart();
}

function showWanted() {
  find('.want').replaceChildren(...Object.entries(library.items).map(([name, count]) => {
    const toggle = make('button', { type: 'button', className: 'kind m-' + name, 'aria-pressed': String(wanted.has(name)) },
      icon(name), kindOf(name)[1] + ' ', make('small', {}, count.toLocaleString('en')));
    toggle.addEventListener('click', () => {
      wanted.has(name) ? wanted.delete(name) : wanted.add(name);
      toggle.setAttribute('aria-pressed', String(wanted.has(name)));
      search();
    });
    return toggle;
  }));
}

function showStart() {
  say('');
  if (!library.files) {
    results.replaceChildren(panel('empty', 'This library is empty',
      'Give it a folder of pictures, videos, sounds or texts. In a terminal on the machine that runs this server:',
      make('pre', {}, make('code', {}, library.index_command)),
      make('p', { className: 'quiet' }, 'Searching works while it grows, and this page notices by itself.')));
    setTimeout(() => { if (!library.files && element.isConnected) refresh(); }, EMPTY_POLL_MS);
    return;
  }
  const examples = library.examples.map(example => {
    const made = make('button', { type: 'button', className: 'example' },
      ...example.terms.flatMap((term, place) => [
        place || term.weight < 0 ? make('b', {}, term.weight < 0 ? '−' : '+') : null,
        picture(term),
        make('span', {}, term.words !== undefined ? '“' + term.words + '”' : term.name),
      ]),
      make('small', {}, example.want ? 'to ' + kindOf(example.want)[1] : 'to anything'));
    made.addEventListener('click', () => run(example));
    return made;
  });
  results.replaceChildren(make('div', { className: 'state start' },
    make('h2', {}, 'Find anything with anything'),
    make('p', {}, 'Words, pictures, sounds, recordings: each may be added to the query or subtracted from it. Try one:'),
    make('div', { className: 'examples' }, ...examples),
    make('div', { className: 'glimpse' }, ...library.glimpse.map(({ item, name }) => {
      const image = make('img', { src: 'v1/items/' + item + '/thumbnail', alt: '', loading: 'lazy' });
      const made = button('', () => showDetails(item));
      image.addEventListener('error', () => made.remove());
      made.setAttribute('aria-label', 'Show ' + name);
      made.title = name;
      made.append(image);
      return made;
    }))));
}

function run(example) {
  query.length = 0;
  words.value = '';
  wanted.clear();
  if (example.want) wanted.add(example.want);
  if (example.terms.length === 1 && example.terms[0].words !== undefined) words.value = example.terms[0].words;
  else query.push(...example.terms.map(term => ({ ...term })));
  showWanted();
  showTerms();
  search();
  words.focus({ preventScroll: true });
}

// ---- Microphone and camera ----

async function record(kind) {
  if (!recorder.hidden) return;
  const sound = kind === 'microphone';
  if (!navigator.mediaDevices) {
    notify('Recording does not work here', 'Browsers allow it only on https addresses and on localhost.');
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia(sound ? { audio: true } : { video: { width: 640 } });
  } catch (error) {
    const denied = error.name === 'NotAllowedError';
    notify(denied ? 'The browser was not allowed to use the ' + kind : 'No ' + kind + ' was found',
      denied ? 'Allow it beside the address of this page, then try again.' : 'Connect one, or add a file instead.');
    return;
  }
  const end = () => {
    stream.getTracks().forEach(track => track.stop());
    recorder.hidden = true;
    recorder.replaceChildren();
    find('[data-do="' + kind + '"]').focus();
  };
  recorder.hidden = false;
  sound ? recordSound(stream, end) : takePicture(stream, end);
}

function recordSound(stream, end) {
  const media = new MediaRecorder(stream);
  const parts = [];
  const time = make('span', { role: 'timer' }, 'Recording 0 s');
  let seconds = 0;
  const clock = setInterval(() => {
    seconds += 1;
    time.textContent = 'Recording ' + seconds + ' s';
    if (seconds >= LONGEST_RECORDING_S) media.stop();
  }, 1000);
  let kept = true;
  media.addEventListener('dataavailable', event => parts.push(event.data));
  media.addEventListener('stop', () => {
    clearInterval(clock);
    end();
    const type = media.mimeType.split(';')[0];
    const suffix = { 'audio/webm': '.weba', 'audio/mp4': '.m4a', 'audio/ogg': '.ogg' }[type] || '.weba';
    if (kept) addFiles([new File(parts, 'recording' + suffix, { type })]);
  });
  const stop = button('Stop and search', () => media.stop(), 'primary');
  recorder.replaceChildren(make('span', { className: 'dot' }), time, stop, button('Cancel', () => { kept = false; media.stop(); }));
  media.start();
  stop.focus();
}

function takePicture(stream, end) {
  const view = make('video', { autoplay: true, muted: true, playsInline: true, srcObject: stream, 'aria-label': 'What the camera sees' });
  const shoot = button('Take the picture', () => {
    const canvas = make('canvas', { width: view.videoWidth, height: view.videoHeight });
    canvas.getContext('2d').drawImage(view, 0, 0);
    canvas.toBlob(blob => addFiles([new File([blob], 'camera.jpg', { type: 'image/jpeg' })]), 'image/jpeg', 0.92);
    end();
  }, 'primary');
  shoot.disabled = true;
  view.addEventListener('loadeddata', () => { shoot.disabled = false; shoot.focus(); });
  recorder.replaceChildren(view, shoot, button('Cancel', end));
}

// ---- Results ----

async function showDetails(id) {
  const answer = await call('details', id);
  if (answer.problem) {
    notify(answer.problem.title, answer.problem.text);
    return;
  }
  find('.content', dialog).innerHTML = answer.html;
  if (!dialog.open) dialog.showModal();
}

function act(what, card) {
  if (what === 'more') addItem(card, 1, true);
  if (what === 'less') addItem(card, -0.5, false);
  if (what === 'add') addItem(card, 1, false);
  if (what === 'details') showDetails(Number(card.dataset.id));
}

element.addEventListener('click', event => {
  const pressed = event.target.closest('[data-do]');
  if (pressed) {
    const what = pressed.dataset.do, card = pressed.closest('[data-id]');
    if (card && what !== 'play') act(what, card);
    if (what === 'upload') fileInput.click();
    if (what === 'microphone' || what === 'camera') record(what);
    if (what === 'plus') addWords(1);
    if (what === 'minus') addWords(-1);
    if (what === 'play') find('video', pressed.parentElement).play();
    if (what === 'where') { find('.where').value = pressed.textContent; find('.where').focus(); search(); }
    return;
  }
  const picture = event.target.closest('.card .figure');
  if (picture && !event.target.closest('.clip, .sound')) showDetails(Number(picture.closest('.card').dataset.id));
});

function step(cards, from, key) {
  // The columns are counted from where the cards stand, so that up and down follow what is seen.
  const top = card => Math.round(card.getBoundingClientRect().top);
  const columns = Math.max(1, cards.filter(card => top(card) === top(cards[0])).length);
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  return cards[from + steps[key]];
}

element.addEventListener('keydown', event => {
  const card = event.target.classList && event.target.classList.contains('card') ? event.target : null;
  if (card && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const cards = all('.card', results);
    const what = { Enter: 'details', m: 'more', l: 'less', a: 'add' }[event.key];
    if (what) {
      event.preventDefault();
      act(what, card);
    } else if (event.key.startsWith('Arrow')) {
      event.preventDefault();
      const next = step(cards, cards.indexOf(card), event.key);
      if (next) next.focus();
      else if (event.key === 'ArrowUp') words.focus();
    }
  } else if (event.target === words && event.key === 'ArrowDown' && find('.card', results)) {
    event.preventDefault();
    find('.card', results).focus();
  }
});

document.addEventListener('keydown', event => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== 'range';
  if (event.key === '/' && !typing && !dialog.open && element.isConnected) {
    event.preventDefault();
    openTab('search');
    words.focus();
    words.select();
  }
});

// A player that cannot play says so, and offers the file.
element.addEventListener('error', event => {
  const media = event.target;
  if (media.tagName === 'IMG' && media.dataset.instead) {
    media.src = media.dataset.instead;
    delete media.dataset.instead;
  } else if (media.tagName === 'IMG' && media.closest('.figure')) {
    media.replaceWith(make('p', { className: 'gone' }, 'No picture can be made of this file.'));
  } else if (/^(VIDEO|AUDIO)$/.test(media.tagName) && media.closest('.figure')) {
    (media.closest('.clip') || media).replaceWith(make('p', { className: 'gone' }, 'This browser cannot play the file. ', make('a', { href: media.src.split('#')[0], download: '' }, 'Download it')));
  }
}, true);

// Media fragments start a player at its stretch; one that was moved before it was loaded is set there by hand.
element.addEventListener('loadedmetadata', event => {
  const start = Number(event.target.dataset.start || 0);
  if (start && event.target.currentTime < start - 0.05) event.target.currentTime = start;
}, true);

element.addEventListener('play', event => {
  const start = event.target.closest('.clip') && find('.play', event.target.parentElement);
  if (start) {
    start.remove();
    event.target.controls = true;  // before, they would lie over the picture
    event.target.focus({ preventScroll: true });
  }
  all('video, audio').forEach(other => { if (other !== event.target && !other.srcObject) other.pause(); });
}, true);

// ---- Input: typing, dropping, pasting ----

find('.ask').addEventListener('submit', event => { event.preventDefault(); search(); });
words.addEventListener('search', () => { if (!words.value) search(); });
find('.k').addEventListener('change', () => search());
find('.where').addEventListener('change', () => search());
fileInput.addEventListener('change', () => { addFiles([...fileInput.files]); fileInput.value = ''; });
dialog.addEventListener('close', () => find('.content', dialog).replaceChildren());
dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });

document.addEventListener('paste', event => {
  const files = element.isConnected ? [...(event.clipboardData || {}).files || []] : [];
  if (files.length) { event.preventDefault(); addFiles(files); }
});
const carriesFiles = event => event.dataTransfer && [...event.dataTransfer.types].includes('Files');
document.addEventListener('dragover', event => { if (carriesFiles(event)) { event.preventDefault(); find('.drop').hidden = false; } });
document.addEventListener('dragleave', event => { if (!event.relatedTarget) find('.drop').hidden = true; });
document.addEventListener('drop', event => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  find('.drop').hidden = true;
  addFiles([...event.dataTransfer.files]);
});

// ---- Tabs ----

const tabs = all('[role="tab"]');
function openTab(name) {
  for (const tab of tabs) {
    const chosen = tab.id === 'tab-' + name;
    tab.setAttribute('aria-selected', String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    find('#panel-' + tab.id.slice(4)).hidden = !chosen;
  }
  if (name === 'explore') showMap();
  if (name === 'about') showAbout();
}
tabs.forEach((tab, place) => {
  tab.addEventListener('click', () => openTab(tab.id.slice(4)));
  tab.addEventListener('keydown', event => {
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const chosen = tabs[(next + tabs.length) % tabs.length];
    chosen.focus();
    openTab(chosen.id.slice(4));
  });
});

async function showAbout() {
  const answer = await call('about', null);
  const sheet = find('.sheet');
  if (answer.problem) sheet.replaceChildren(panel('failed', answer.problem.title, answer.problem.text));
  else sheet.innerHTML = answer.html;
}

// ---- The map ----

async function showMap() {
  const place = find('.explore');
  const began = performance.now();
  const drawing = panel('wait', 'Drawing the map', 'Similar things are being placed side by side. For thousands of items this takes some seconds, once.');
  if (mapRevision === null) place.replaceChildren(drawing);
  const clock = setInterval(() => { find('h2', drawing).textContent = 'Drawing the map: ' + Math.round((performance.now() - began) / 1000) + ' s'; }, 1000);
  const answer = await call('explore', mapRevision);
  clearInterval(clock);
  if (answer.unchanged) return;
  mapRevision = null;
  if (answer.problem) {
    place.replaceChildren(panel('failed', answer.problem.title, answer.problem.text, button('Try again', showMap, 'primary')));
  } else if (!answer.points.length) {
    place.replaceChildren(panel('empty', 'Nothing to map yet', 'The library is empty; the search tab says how to fill it.'));
  } else {
    mapRevision = answer.revision;
    drawMap(place, answer);
  }
}

function drawMap(place, { points, modalities, shown, total }) {
  // points: [id, x, y, index of the modality, name], x and y in 0..1
  const NS = 'http://www.w3.org/2000/svg', W = 1000, H = innerWidth < 640 ? 1150 : 620, EDGE = 30;
  const svg = document.createElementNS(NS, 'svg');
  svg.setAttribute('class', 'map');
  svg.setAttribute('role', 'application');
  svg.setAttribute('aria-label', 'Map of the library: arrow keys go from point to point, Enter shows one');
  const view = { x: 0, y: 0, scale: 1 };
  const layer = document.createElementNS(NS, 'g');
  svg.append(layer);
  svg.setAttribute('viewBox', '0 0 ' + W + ' ' + H);
  const radius = points.length > 800 ? 4 : points.length > 150 ? 6 : 8;  // pixels
  const circles = points.map(([id, x, y, kind, name], number) => {
    const circle = document.createElementNS(NS, 'circle');
    const at = [EDGE + x * (W - 2 * EDGE), EDGE + y * (H - 2 * EDGE)];
    circle.setAttribute('cx', at[0]);
    circle.setAttribute('cy', at[1]);
    circle.setAttribute('class', 'm-' + modalities[kind]);
    circle.setAttribute('role', 'button');
    circle.setAttribute('aria-label', name + ', ' + kindOf(modalities[kind])[0]);
    circle.setAttribute('tabindex', number ? '-1' : '0');
    Object.assign(circle, { itemId: id, at, kind: modalities[kind], itemName: name });
    layer.append(circle);
    return circle;
  });
  const tip = make('div', { className: 'map-tip', hidden: true, 'aria-hidden': 'true' });
  const stage = make('div', { className: 'stage' }, svg, tip);

  const apply = () => {
    layer.setAttribute('transform', 'translate(' + view.x + ' ' + view.y + ') scale(' + view.scale + ')');
    // As many pixels on any screen; zooming in grows the distances, not the points.
    svg.style.setProperty('--radius', radius * W / (svg.clientWidth || W) / view.scale + 'px');
  };
  const zoom = (factor, x = W / 2, y = H / 2) => {
    const scale = Math.min(20, Math.max(1, view.scale * factor));
    view.x = x - (x - view.x) * scale / view.scale;
    view.y = y - (y - view.y) * scale / view.scale;
    view.scale = scale;
    if (scale === 1) view.x = view.y = 0;
    apply();
  };
  const where = event => {
    const box = svg.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * W, (event.clientY - box.top) / box.height * H];
  };
  svg.addEventListener('wheel', event => {
    if (!event.ctrlKey && view.scale === 1 && event.deltaY > 0) return;  // nothing to zoom out of: let the page scroll
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...where(event));
  }, { passive: false });
  let held = null, moved = false;
  svg.addEventListener('pointerdown', event => { held = where(event); moved = false; });
  svg.addEventListener('pointermove', event => {
    if (!held || !event.buttons) return;
    const now = where(event);
    if (Math.hypot(now[0] - held[0], now[1] - held[1]) < 4 && !moved) return;
    moved = true;
    view.x += now[0] - held[0];
    view.y += now[1] - held[1];
    held = now;
    apply();
  });
  svg.addEventListener('click', event => { if (!moved && event.target.itemId !== undefined) showDetails(event.target.itemId); });

  const show = circle => {
    tip.hidden = false;
    const image = ['image', 'video'].includes(circle.kind) ? make('img', { src: 'v1/items/' + circle.itemId + '/thumbnail', alt: '' }) : icon(circle.kind);
    tip.replaceChildren(image, make('span', {}, circle.itemName));
    const box = circle.getBoundingClientRect(), outer = stage.getBoundingClientRect();
    tip.style.left = Math.min(Math.max(box.left - outer.left, 70), outer.width - 70) + 'px';
    const below = box.top - outer.top < outer.height / 2;
    tip.style.top = (below ? box.bottom - outer.top + 8 : box.top - outer.top - 8) + 'px';
    tip.classList.toggle('above', !below);
  };
  for (const kind of ['pointerover', 'focusin']) svg.addEventListener(kind, event => { if (event.target.itemId !== undefined) show(event.target); });
  for (const kind of ['pointerout', 'focusout']) svg.addEventListener(kind, () => { tip.hidden = true; });
  svg.addEventListener('keydown', event => {
    const circle = event.target;
    if (circle.itemId === undefined) return;
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      showDetails(circle.itemId);
    }
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    let best = null, least = Infinity;
    for (const other of circles) {
      if (other === circle || other.style.display) continue;
      const dx = other.at[0] - circle.at[0], dy = other.at[1] - circle.at[1];
      const ahead = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
      if (ahead <= 0 || aside > 2 * ahead) continue;
      if (ahead + 2 * aside < least) { least = ahead + 2 * aside; best = other; }
    }
    if (best) {
      circle.setAttribute('tabindex', '-1');
      best.setAttribute('tabindex', '0');
      best.focus();
    }
  });

  const legend = make('div', { className: 'want', role: 'group', 'aria-label': 'Kinds on the map' }, ...modalities.map(name => {
    const toggle = make('button', { type: 'button', className: 'kind m-' + name, 'aria-pressed': 'true' }, icon(name), kindOf(name)[1]);
    toggle.addEventListener('click', () => {
      const on = toggle.getAttribute('aria-pressed') !== 'true';
      toggle.setAttribute('aria-pressed', String(on));
      circles.forEach(circle => { if (circle.kind === name) circle.style.display = on ? '' : 'none'; });
    });
    return toggle;
  }));
  const tools = make('div', { className: 'tools' }, ...[['+', 'Larger', 1.5], ['−', 'Smaller', 1 / 1.5], ['⤢', 'All of it', 0]].map(([mark, label, factor]) => {
    const made = button(mark, () => zoom(factor));
    made.setAttribute('aria-label', label);
    made.title = label;
    return made;
  }));
  stage.append(tools);
  const note = shown < total ? 'A sample of ' + shown.toLocaleString('en') + ' of ' + total.toLocaleString('en') + ' items. ' : '';
  place.replaceChildren(legend, stage, make('p', { className: 'quiet' },
    note + 'Each point is an item; what lies side by side is similar (t-SNE). Every kind was centred first, as each keeps to a region of its own. Distances between far points mean nothing.'));
  new ResizeObserver(apply).observe(svg);
}

refresh();
