// Which words of a text answer a query, and which part of a long text to show. The service compares English stems; this
// comes close to them, and decides nothing but what is highlighted.

const STOP_WORDS = new Set(
  ("a about above after again against all am an and any are as at be because been before being below between both but by " +
    "can did do does doing don down during each few for from further had has have having he her here hers herself him himself " +
    "his how i if in into is it its itself just me more most my myself no nor not now of off on once only or other our ours " +
    "ourselves out over own s same she should so some such t than that the their theirs them themselves then there these they " +
    "this those through to too under until up very was we were what when where which while who whom why will with you your " +
    "yours yourself yourselves").split(" "),
);
const WORD = /[\p{L}\p{N}_]+/gu;

export function stem(word) {
  let stemmed = word.toLowerCase();
  if (!/^[a-z]{4,}$/.test(stemmed)) return stemmed;
  stemmed = stemmed.replace(/(?:ies|ied)$/, "y").replace(/(?:sses)$/, "ss").replace(/([^su])s$/, "$1");
  stemmed = stemmed.replace(/(?:ational|ation|ating|ated|ate|ator)$/, "at").replace(/(?:ization|izing|ized|ize)$/, "iz");
  if (/[aeiouy].*(?:ing|ed|edly|ingly)$/.test(stemmed)) stemmed = stemmed.replace(/(?:ingly|edly|ing|ed)$/, "");
  stemmed = stemmed.replace(/(?:fulness|ousness|iveness)$/, "").replace(/(?:ement|ment|ness|ful|ly|er|est)$/, "");
  stemmed = stemmed.replace(/([b-df-hj-np-tv-z])\1$/, "$1").replace(/e$/, "").replace(/y$/, "i");
  return stemmed.length >= 3 ? stemmed : word.toLowerCase();
}

export function stemsOf(query) {
  const words = [...query.matchAll(WORD)].map((found) => found[0].toLowerCase());
  return new Set(words.filter((word) => !STOP_WORDS.has(word)).map(stem));
}

function matches(text, stems) {
  return [...text.matchAll(WORD)]
    .filter((found) => stems.has(stem(found[0])) && !STOP_WORDS.has(found[0].toLowerCase()))
    .map((found) => ({ start: found.index, end: found.index + found[0].length }));
}

// The text as nodes, its matching words in <mark>.
export function marked(text, stems) {
  const nodes = [];
  let end = 0;
  for (const found of matches(text, stems)) {
    const mark = document.createElement("mark");
    mark.textContent = text.slice(found.start, found.end);
    nodes.push(document.createTextNode(text.slice(end, found.start)), mark);
    end = found.end;
  }
  nodes.push(document.createTextNode(text.slice(end)));
  return nodes;
}

const LIST_ITEM = /^(?:\s|[-*+>|#=~`]|\d+[.)]\s)/;
const FULL_LINES = 0.75;

// A text whose lines were broken at a width, with its paragraphs in one piece. Lines that end early mean something.
export function unwrapped(text) {
  const lines = text.split("\n");
  const width = Math.max(...lines.map((line) => line.length));
  const follows = (place) => lines[place].trim() !== "" && lines[place - 1].trim() !== "" && !LIST_ITEM.test(lines[place]);
  const isFull = (place) => lines[place - 1].length + 1 + lines[place].split(" ")[0].length > width - 3;
  const places = lines.map((_, place) => place).slice(1).filter(follows);
  const full = new Set(places.filter(isFull));
  if (width < 40 || width > 120 || full.size < FULL_LINES * places.length) return text;
  return lines.reduce((sofar, line, place) => sofar + (full.has(place) ? " " : "\n") + line);
}

// The part of a text, whole words of at most so many characters, that holds the most different words of the query.
export function excerpt(text, stems, length) {
  const line = text.replace(/\s+/g, " ").trim();
  if (line.length <= length) return marked(line, stems);
  const found = matches(line, stems);
  let best = 0;
  let bestScore = 0;
  for (const first of found) {
    const start = Math.max(first.start - Math.floor(length / 5), 0);
    const inside = found.filter((word) => word.start >= start && word.end <= start + length);
    const score = 100 * new Set(inside.map((word) => stem(line.slice(word.start, word.end)))).size + inside.length;
    if (score > bestScore) [best, bestScore] = [start, score];
  }
  let start = Math.min(best, line.length - length);
  let end = start + length;
  if (start > 0) start = line.indexOf(" ", start) + 1 || start;
  if (end < line.length) end = Math.max(line.lastIndexOf(" ", end), start + 1);
  const nodes = marked(line.slice(start, end), stems);
  if (start > 0) nodes.unshift(document.createTextNode("… "));
  if (end < line.length) nodes.push(document.createTextNode(" …"));
  return nodes;
}
