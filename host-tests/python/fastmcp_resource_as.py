# A Resource AS and its MCP server in one process, as FastMCP makes them: OAuthProxy with identity assertion (beta).
# The login that the proxy would hand on to is never used. Access tokens are HS256, and their key is not published.
#
# In:  { idp: { issuer, jwks_uri, alg }, client: { id, secret? }, scopes: [..] }
#      Without a secret, the client is registered as FastMCP does it: public. With one, it is put in the store beside
#      that, for register_client drops secrets.
#      With `own_storage`, a folder, clients and tokens are kept where FastMCP keeps them by itself: encrypted, in files.
# Out: { issuer, resource }, then serves until stdin closes.
import asyncio
import os
import secrets
from typing import Any

from part import given, origin, serve

os.environ["FASTMCP_HOME"] = given.get("own_storage", "/nonexistent")  # read when it is imported
from fastmcp import FastMCP
from fastmcp.server.auth import IdentityAssertion, OAuthProxy
from fastmcp.server.auth.oauth_proxy.models import ProxyDCRClient
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from fastmcp.server.dependencies import get_access_token
from key_value.aio.stores.memory import MemoryStore
from mcp.shared.auth import OAuthClientInformationFull

idp, client = given["idp"], given["client"]
auth = OAuthProxy(
    upstream_authorization_endpoint=f"{origin}/unused",
    upstream_token_endpoint=f"{origin}/unused",
    upstream_client_id="unused",
    upstream_client_secret=secrets.token_urlsafe(),
    token_verifier=StaticTokenVerifier(tokens={}),
    base_url=origin,
    client_storage=None if given.get("own_storage") else MemoryStore(),
    jwt_signing_key=secrets.token_urlsafe(),
    identity_assertion=IdentityAssertion(
        trusted_issuers=[idp["issuer"]],
        jwks_uris={idp["issuer"]: idp["jwks_uri"]},
        algorithm=idp["alg"],
        required_scopes=given["scopes"],
    ),
)
mcp = FastMCP("fastmcp", auth=auth)


@mcp.tool
def whoami() -> dict[str, Any]:
    """Whom the access token names."""
    token = get_access_token()
    return {"caller": token.claims["sub"], "client": token.client_id, "scopes": sorted(token.scopes)}


async def register() -> None:
    if "secret" not in client:
        return await auth.register_client(OAuthClientInformationFull(client_id=client["id"], redirect_uris=None))
    confidential = ProxyDCRClient(
        client_id=client["id"],
        client_secret=client["secret"],
        redirect_uris=[f"{origin}/unused"],
        grant_types=["urn:ietf:params:oauth:grant-type:jwt-bearer"],
        token_endpoint_auth_method="client_secret_basic",
    )
    await auth._client_store.put(key=client["id"], value=confidential)


app = mcp.http_app(path="/mcp")
asyncio.run(register())
serve(app, {"issuer": str(auth.issuer_url), "resource": f"{origin}/mcp"})
