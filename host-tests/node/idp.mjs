// The IdP: panva's oidc-provider, taught to issue ID-JAGs by one extra grant (RFC 8693 profile of
// draft-ietf-oauth-identity-assertion-authz-grant §4.3). Login, codes, client authentication,
// refresh tokens, ID tokens, keys and discovery are the library's own.
//
// In:  { port, clients: [{ id, secret, redirect_uri,
//          id_jag: { "<issuer of a Resource AS>": { client_id, resources: [..], scopes: [..] } },
//          metadata?: { .. RFC 7591, over what is registered otherwise .. } }],
//        users?: { name: claims }, alg?: "ES256" | "RS256", id_token_ttl?: seconds,
//        tls?: { cert, key } in PEM, features?: { .. the library's .. },
//        interval?: seconds between two questions of a device (RFC 8628 §3.2),
//        rotate?: true to give a new refresh token for one that is exchanged }
// Out: { issuer, jwks_uri, token_endpoint }, then serves until stdin closes; { revoked: true } for each refresh
//      token that is revoked.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { SignJWT, createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import { Provider, errors } from 'oidc-provider';
import { input, say, serveUntilStdinCloses } from './part.mjs';

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:';
const ID_JAG = `${TOKEN_TYPE}id-jag`;
const alg = input.alg ?? 'ES256';
const users = input.users ?? { alice: { email: 'alice@acme.example' } };

const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
const kid = randomUUID(); // fresh per start: a key set cached from an earlier run then misses, as it must
const jwk = async (key) => ({ ...(await exportJWK(key)), alg, kid, use: 'sig' });
const ourKeys = createLocalJWKSet({ keys: [await jwk(publicKey)] });

// Listen first: the issuer holds the port, and the port may be 0 (any).
const server = input.tls ? createTlsServer(input.tls) : createServer();
await new Promise((up, down) => server.once('error', down).listen(input.port ?? 0, '127.0.0.1', up));
const issuer = `http${input.tls ? 's' : ''}://127.0.0.1:${server.address().port}`;

const methods = input.clients.flatMap(({ metadata }) => metadata?.token_endpoint_auth_method ?? []);
const provider = new Provider(issuer, {
  clients: input.clients.map(({ id, secret, redirect_uri, metadata }) => ({
    client_id: id,
    client_secret: secret,
    redirect_uris: [redirect_uri],
    grant_types: ['authorization_code', 'refresh_token', TOKEN_EXCHANGE],
    token_endpoint_auth_method: 'client_secret_basic', // the library takes _post from the same client
    id_token_signed_response_alg: alg,
    require_auth_time: true, // as an upgrade policy may want to know how fresh the login is
    ...metadata,
  })),
  jwks: { keys: [await jwk(privateKey)] },
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', ...methods],
  claims: { openid: ['sub'], email: ['email'] },
  conformIdTokenClaims: false, // email in the ID token, not only at userinfo
  cookies: { keys: [randomUUID()] },
  features: { devInteractions: { enabled: true }, resourceIndicators: { enabled: false }, ...input.features },
  findAccount: (_, id) => Object.hasOwn(users, id)
    ? { accountId: id, claims: () => ({ sub: id, ...users[id] }) }
    : undefined,
  rotateRefreshToken: false, // an exchange must not use up the token that the next one needs
  ttl: { IdToken: input.id_token_ttl ?? 8 * 3600, RefreshToken: 86400, Grant: 86400 },
  discovery: { identity_chaining_requested_token_types_supported: [ID_JAG] },
});

// By token type: who the user is, or a refusal.
const subjects = {
  async [`${TOKEN_TYPE}id_token`](token, client) {
    // jose checks the signature, iss, aud = the authenticated client, and exp.
    const { payload, protectedHeader } = await jwtVerify(token, ourKeys, {
      issuer, audience: client.clientId, algorithms: [alg], requiredClaims: ['sub', 'exp', 'iat'],
    });
    if (!['JWT', undefined].includes(protectedHeader.typ)) throw new Error('not an ID token');
    if (payload.azp && payload.azp !== client.clientId) throw new Error('authorized party mismatch');
    return { sub: payload.sub, authTime: payload.auth_time };
  },
  async [`${TOKEN_TYPE}refresh_token`](token, client) {
    const found = await provider.RefreshToken.find(token);
    if (!found?.isValid || found.clientId !== client.clientId) throw new Error('no such refresh token');
    if (!(await provider.Grant.find(found.grantId))) throw new Error('the grant was revoked');
    return { sub: found.accountId, authTime: found.authTime };
  },
};

async function tokenExchange(ctx) {
  const { client, params } = ctx.oidc;
  if (params.requested_token_type !== ID_JAG) throw new errors.InvalidRequest('only ID-JAGs are issued here');

  const kind = params.subject_token_type ?? '';
  if (!params.subject_token || !Object.hasOwn(subjects, kind)) throw new errors.InvalidRequest('no usable subject token');
  const subject = await subjects[kind](params.subject_token, client).catch((cause) => {
    throw new errors.InvalidGrant(`subject token refused: ${cause.message}`); // goes to our log, not to the client
  });
  if (!Object.hasOwn(users, subject.sub)) throw new errors.InvalidGrant('unknown user');

  // The allow-list: which Resource ASes this client may reach, and who it is there.
  const { id_jag: targets = {} } = input.clients.find(({ id }) => id === client.clientId);
  if (!Object.hasOwn(targets, params.audience ?? '')) throw new errors.InvalidTarget('audience not allowed');
  const target = targets[params.audience];
  const resources = [params.resource ?? []].flat();
  if (!resources.every((one) => target.resources.includes(one))) throw new errors.InvalidTarget('resource not allowed');
  // Granted scope may be narrower than what was asked (D.2, TX-11); the answer then says so.
  const scope = params.scope?.split(' ').filter((one) => target.scopes.includes(one)).join(' ') || undefined;
  if (params.scope && !scope) throw new errors.InvalidScope('no such scope', params.scope);

  const idJag = await new SignJWT({
    client_id: target.client_id,
    resource: resources.length > 1 ? resources : resources[0], // JSON drops what is undefined
    scope,
    email: users[subject.sub].email,
    auth_time: subject.authTime,
  })
    .setProtectedHeader({ alg, kid, typ: 'oauth-id-jag+jwt' })
    .setIssuer(issuer).setSubject(subject.sub).setAudience(params.audience)
    .setJti(randomUUID()).setIssuedAt().setExpirationTime('300s')
    .sign(privateKey);
  // The library has set Cache-Control: no-store already.
  ctx.body = { issued_token_type: ID_JAG, access_token: idJag, token_type: 'N_A', scope, expires_in: 300 };
  if (input.rotate && kind.endsWith('refresh_token')) ctx.body.refresh_token = await rotated(params.subject_token, client);
}

async function rotated(token, client) {
  const old = await provider.RefreshToken.find(token);
  const { accountId, authTime, grantId, gty, scope } = old;
  await old.destroy();
  return new provider.RefreshToken({ accountId, authTime, client, grantId, gty, scope }).save();
}

provider.registerGrantType(
  TOKEN_EXCHANGE,
  tokenExchange,
  ['requested_token_type', 'audience', 'resource', 'scope', 'subject_token', 'subject_token_type'],
  ['resource'], // may repeat (RFC 8707)
);

if (input.interval) {
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'device_authorization' && ctx.status === 200) ctx.body.interval = input.interval;
  });
}

provider.on('grant.revoked', () => say({ revoked: true }));
provider.on('server_error', (_, error) => console.error(error));
provider.on('grant.error', (_, error) => console.error(`idp: ${error.message}: ${error.error_description ?? ''} ${error.error_detail ?? ''}`));
server.on('request', provider.callback());
serveUntilStdinCloses();
say({ issuer, jwks_uri: provider.urlFor('jwks'), token_endpoint: provider.urlFor('token') });
