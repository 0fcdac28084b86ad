// An MCP client that speaks EMA by itself: SDK v2. It finds the AS behind the MCP server, asks the IdP
// for an ID-JAG (leg 1), redeems it (leg 2, HTTP Basic with no client_id in the body) and calls a tool.
//
// In:  { idp: { token_endpoint, id_token, client: { id, secret } },
//        accept: { url, issuer, client: { id, secret } }, tool, arguments? }
// Out: { server, tools: [names], result }
import { Client, CrossAppAccessProvider, StreamableHTTPClientTransport, requestJwtAuthorizationGrant } from '@modelcontextprotocol/client';
import { input, say, tryTool } from './part.mjs';

const { idp, accept } = input;
const authProvider = new CrossAppAccessProvider({
  clientId: accept.client.id,
  clientSecret: accept.client.secret,
  expectedIssuer: accept.issuer,
  async assertion(ctx) {
    const { jwtAuthGrant } = await requestJwtAuthorizationGrant({
      tokenEndpoint: idp.token_endpoint,
      audience: ctx.authorizationServerUrl,
      resource: ctx.resourceUrl,
      idToken: idp.id_token,
      clientId: idp.client.id,
      clientSecret: idp.client.secret,
      scope: ctx.scope,
    });
    return jwtAuthGrant;
  },
});
const transport = new StreamableHTTPClientTransport(new URL(accept.url), { authProvider });
say(await tryTool(new Client({ name: 'xaa-client', version: '1' }), transport));
