# A Resource AS and its MCP server in one process, of the MCP SDK for Python: the SDK's routes, client authentication
# (`client_id` in the form even beside HTTP Basic) and bearer middleware. The checks of the ID-JAG are left to whoever
# uses the SDK; here PyJWT makes them, as ID-JAG section 4.4.1 lists them. Access tokens are opaque.
#
# In:  { idp: { issuer, jwks_uri, alg }, client: { id, secret }, scopes: [..] }
# Out: { issuer, resource }, then serves until stdin closes.
import secrets
import sys
import time
from typing import Any

import jwt
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, OAuthAuthorizationServerProvider, TokenError
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import JWT_BEARER_GRANT_TYPE, OAuthClientInformationFull, OAuthToken
from part import given, origin, serve

LIFETIME = 300
idp, client, resource = given["idp"], given["client"], f"{origin}/mcp"


class Provider(OAuthAuthorizationServerProvider):
    def __init__(self) -> None:
        self.keys = jwt.PyJWKClient(idp["jwks_uri"])
        self.tokens: dict[str, AccessToken] = {}
        self.seen: set[str] = set()

    async def get_client(self, client_id):
        if client_id != client["id"]:
            return None
        return OAuthClientInformationFull(
            client_id=client_id,
            client_secret=client["secret"],
            grant_types=[JWT_BEARER_GRANT_TYPE],
            token_endpoint_auth_method="client_secret_basic",
            redirect_uris=None,
        )

    async def exchange_identity_assertion(self, client, params):
        try:
            claims = self.checked(params.assertion, client.client_id)
        except (jwt.PyJWTError, ValueError) as error:
            print("ID-JAG rejected:", error, file=sys.stderr, flush=True)
            raise TokenError("invalid_grant", "not acceptable") from error
        token, scopes = secrets.token_urlsafe(), claims.get("scope", "").split()
        self.tokens[token] = AccessToken(
            token=token,
            client_id=client.client_id,
            scopes=scopes,
            expires_at=int(time.time()) + LIFETIME,
            resource=claims["resource"],
            subject=claims["sub"],
        )
        return OAuthToken(access_token=token, token_type="Bearer", expires_in=LIFETIME, scope=" ".join(scopes))

    def checked(self, assertion: str, client_id: str) -> dict[str, Any]:
        if jwt.get_unverified_header(assertion).get("typ") != "oauth-id-jag+jwt":
            raise ValueError("not an ID-JAG")
        claims = jwt.decode(
            assertion,
            self.keys.get_signing_key_from_jwt(assertion),
            algorithms=[idp["alg"]],
            audience=origin,
            issuer=idp["issuer"],
            options={"require": ["exp", "iat", "sub", "jti"], "strict_aud": True},
        )
        if claims.get("client_id") != client_id:
            raise ValueError("issued for another client")
        if claims.get("resource") != resource:
            raise ValueError(f"issued for another resource: {claims.get('resource')}")
        if claims["jti"] in self.seen:
            raise ValueError("redeemed before")
        self.seen.add(claims["jti"])
        return claims

    async def load_access_token(self, token):
        return self.tokens.get(token)


mcp = MCPServer(
    "python-sdk",
    auth_server_provider=Provider(),
    auth=AuthSettings(
        issuer_url=origin,
        resource_server_url=resource,
        required_scopes=given["scopes"],
        validate_token_resource=True,
        identity_assertion_enabled=True,
    ),
)


@mcp.tool()
def whoami() -> dict[str, Any]:
    """Whom the access token names."""
    token = get_access_token()
    return {"caller": token.subject, "client": token.client_id, "scopes": sorted(token.scopes)}


serve(mcp.streamable_http_app(), {"issuer": origin, "resource": resource})
