// A user signs in at idp.mjs without a browser: code flow with PKCE, forms posted as a browser would.
//
// In:  { issuer, client: { id, secret, redirect_uri }, user? }
// Out: { id_token, refresh_token }
import { createHash, randomBytes } from 'node:crypto';
import { browse } from './browse.mjs';
import { input, say } from './part.mjs';

const { client, issuer, user = 'alice' } = input;
const random = () => randomBytes(32).toString('base64url');
const metadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();

const [verifier, state] = [random(), random()];
let url = new URL(metadata.authorization_endpoint);
url.search = new URLSearchParams({
  client_id: client.id,
  redirect_uri: client.redirect_uri,
  response_type: 'code',
  scope: 'openid email offline_access',
  prompt: 'consent', // OIDC Core §11: without it no offline_access
  state,
  code_challenge: createHash('sha256').update(verifier).digest('base64url'),
  code_challenge_method: 'S256',
});

// Follow redirects and fill in the two forms until the browser would leave for the client.
let response = await browse(url);
for (let step = 0; !url.href.startsWith(client.redirect_uri); step++) {
  if (step > 10) throw new Error(`login does not end, at ${url}`);
  const next = response.headers.get('location');
  if (next) {
    url = new URL(next, url);
    if (!url.href.startsWith(client.redirect_uri)) response = await browse(url);
    continue;
  }
  const page = await response.text();
  const action = /<form[^>]* action="([^"]+)"/.exec(page)?.[1];
  const prompt = /name="prompt" value="([^"]+)"/.exec(page)?.[1];
  if (!action) throw new Error(`no form at ${url}: ${response.status} ${page.slice(0, 300)}`);
  url = new URL(action, url);
  response = await browse(url, prompt === 'login' ? { prompt, login: user, password: 'any' } : { prompt });
}
const code = url.searchParams.get('code');
if (!code || url.searchParams.get('state') !== state) throw new Error(`login failed: ${url.search}`);

const answer = await fetch(metadata.token_endpoint, {
  method: 'POST',
  headers: { authorization: `Basic ${btoa([client.id, client.secret].map(encodeURIComponent).join(':'))}` },
  body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: client.redirect_uri, code_verifier: verifier }),
});
const { id_token, refresh_token, ...rest } = await answer.json();
if (!id_token || !refresh_token) throw new Error(`tokens refused: ${JSON.stringify(rest)}`);
say({ id_token, refresh_token });
