// What panva's jose says of tokens: the second opinion on ID-JAGs.
//
// In:  { cases: path of a file of JSON lines, each { token, jwks, issuer, audience, algorithms, required, now, skew } }
// Out: { verdicts: [ null if it accepts, else its reason ] }
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, errors, jwtVerify } from 'jose';
import { input, say } from './part.mjs';

async function verdict({ token, jwks, issuer, audience, algorithms, required, now, skew }) {
  const options = {
    typ: 'oauth-id-jag+jwt',
    issuer,
    audience,
    algorithms,
    clockTolerance: skew,
    currentDate: new Date(now * 1000),
    requiredClaims: required,
    maxTokenAge: 300, // without it jose does not look at iat
  };
  const keys = createLocalJWKSet({ keys: jwks });
  try {
    await jwtVerify(token, keys, options);
    return null;
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) return `${error.code ?? error.name}: ${error.message}`;
    // No kid, and several keys fit: its documentation says to try them all.
    for await (const key of error) {
      const refusal = await jwtVerify(token, key, options).then(() => null, (next) => next);
      if (!(refusal instanceof errors.JWSSignatureVerificationFailed)) return refusal && `${refusal.code}: ${refusal.message}`;
    }
    return 'no key verifies';
  }
}

const lines = readFileSync(input.cases, 'utf8').split('\n').filter(Boolean);
const verdicts = [];
for (const line of lines) verdicts.push(await verdict(JSON.parse(line)));
say({ verdicts });
