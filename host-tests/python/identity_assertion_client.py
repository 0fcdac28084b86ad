# An MCP client that speaks EMA's second leg by itself: the SDK for Python. It knows the issuer of the AS beforehand,
# as that SDK wants it, and gets its ID-JAG from the IdP (leg 1) by a request of its own, for which the SDK has nothing.
#
# In:  { idp: { token_endpoint, id_token, client: { id, secret } },
#        accept: { url, issuer, client: { id, secret }, method: "client_secret_basic" | "client_secret_post" }, scope? }
# Out: { tools: [names], token: { token_type, scope, expires_in } }
import asyncio
import json
import os

import httpx2
from mcp import Client
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client

TOKEN = "urn:ietf:params:oauth:token-type:"
given = json.loads(os.environ.pop("JAGWAY_PART"))
idp, accept = given["idp"], given["accept"]


async def id_jag(audience: str, resource: str) -> str:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": TOKEN + "id-jag",
        "subject_token": idp["id_token"],
        "subject_token_type": TOKEN + "id_token",
        "audience": audience,
        "resource": resource,
        "client_id": idp["client"]["id"],
        "client_secret": idp["client"]["secret"],
    }
    if "scope" in given:
        form["scope"] = given["scope"]
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(idp["token_endpoint"], data=form)
    answer.raise_for_status()
    return answer.json()["access_token"]


class Storage:
    """Tokens for as long as the process lives."""

    tokens = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return None

    async def set_client_info(self, client_info):
        pass


async def main() -> None:
    storage = Storage()
    auth = IdentityAssertionOAuthProvider(
        server_url=accept["url"],
        storage=storage,
        client_id=accept["client"]["id"],
        client_secret=accept["client"]["secret"],
        issuer=accept["issuer"],
        assertion_provider=id_jag,
        scope=given.get("scope"),
        token_endpoint_auth_method=accept["method"],
    )
    async with httpx2.AsyncClient(auth=auth, trust_env=False) as http:
        async with Client(streamable_http_client(accept["url"], http_client=http)) as client:
            tools = (await client.list_tools()).tools
    token = {name: getattr(storage.tokens, name) for name in ("token_type", "scope", "expires_in")}
    print(json.dumps({"tools": [tool.name for tool in tools], "token": token}))


asyncio.run(main())
