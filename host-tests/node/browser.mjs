// A user in front of a browser: opens a page, fills in every form there is, follows every redirect.
//
// In:  { url, user, cancel?: true to leave at the login, by the link there }
// Out: { status, text } of the page at the end
import { browse } from './browse.mjs';
import { input, say } from './part.mjs';

process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; // whom the user trusts is not what is tried

// The fields of a form as they stand, and what this user types into the others.
const typed = { login: input.user, password: 'any' };
function filledIn(form) {
  const fields = [...form.matchAll(/<input[^>]* name="([^"]+)"[^>]*>/g)].map(([tag, name]) => [
    name,
    typed[name] ?? /value="([^"]*)"/.exec(tag)?.[1] ?? '',
  ]);
  return Object.fromEntries(fields);
}

let url = new URL(input.url);
let response = await browse(url);
let left = false;
for (let step = 0; ; step++) {
  if (step > 20) throw new Error(`no end, at ${url}`);
  const next = response.headers.get('location');
  if (next) {
    url = new URL(next, url);
    response = await browse(url);
    continue;
  }
  const page = await response.text();
  const [, action, body] = /<form[^>]* action="([^"]+)"[^>]*>([^]*?)<\/form>/.exec(page) ?? [];
  const abort = /<a href="([^"]*\/abort)">/.exec(page)?.[1];
  if (input.cancel && abort) {
    left = true;
    url = new URL(abort, url);
    response = await browse(url);
  } else if (action && !left) {
    url = new URL(action, url);
    response = await browse(url, filledIn(body));
  } else {
    say({ status: response.status, text: page });
    break;
  }
}
