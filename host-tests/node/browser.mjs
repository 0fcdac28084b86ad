// A user in front of a browser: opens a page, fills in every form there is, follows every redirect.
//
// In:  { url, user, cancel?: true to leave at the login, by the link there }
// Out: { status, text } of the page at the end
import { input, say } from './part.mjs';

process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; // whom the user trusts is not what is tried

// oidc-provider gives its cookies a path per interaction; names do not clash, so one flat jar will do.
const jar = new Map();
async function browse(url, form) {
  const response = await fetch(url, {
    method: form ? 'POST' : 'GET',
    body: form && new URLSearchParams(form),
    headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') },
    redirect: 'manual',
  });
  for (const line of response.headers.getSetCookie()) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
    if (value) jar.set(name, value);
    else jar.delete(name);
  }
  return response;
}

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
