//! The steps of the demo. Each checks what it claims; the first that fails ends the demo.

use host_tests::discovery::discover;
use host_tests::keys::SigningKey;
use host_tests::mcp_client::{McpClient, McpError};
use host_tests::{World, now};
use serde_json::{Value, json};

use crate::show;

type Outcome = Result<(), String>;

/// Runs them all, telling each.
pub async fn all(world: &World) -> Outcome {
    let mut told = world.journal.len();
    show::title(
        "1. Upgrade: a legacy client with an ID token reaches an MCP server that takes EMA tokens only",
    );
    upgrade(world, world.client_with_id_token(), "alice").await?;
    told = show::hops(&world.journal, told);

    show::title("2. Upgrade: a legacy client with an API key, bound to a user by the operator");
    upgrade(world, world.client_with_api_key(), "ci-bot").await?;
    told = show::hops(&world.journal, told);

    show::title("3. Accept: an EMA client reaches a legacy MCP server that knows an API key only");
    accept(world).await?;
    told = show::hops(&world.journal, told);

    show::title("4. Refusals: ID-JAGs that are not what they should be");
    refusals(world).await?;
    show::hops(&world.journal, told);
    Ok(())
}

async fn upgrade(world: &World, mut client: McpClient, user: &str) -> Outcome {
    client.initialize().await.map_err(told)?;
    let tools = client.tools().await.map_err(told)?;
    check(tools == ["list_tickets"], "the tool of Tickets is listed")?;

    let tickets = client.call("list_tickets", json!({})).await.map_err(told)?;
    check(tickets["caller"] == user, "Tickets sees the user")?;
    check(
        tickets["client"] == world.jagway_at_tickets.id.as_str(),
        "Tickets sees Jagway as the client",
    )?;

    let secrets = [
        &world.alice.id_token,
        &world.alice.refresh_token,
        &world.ci_bot.refresh_token,
        &world.caller_key,
    ];
    let seen = world.tickets.recorder.requests();
    let clean = seen.iter().all(|request| secrets.iter().all(|secret| !request.mentions(secret)));
    check(clean && !seen.is_empty(), "no legacy credential reached Tickets")
}

async fn accept(world: &World) -> Outcome {
    let found = discover(&world.accept_url(), "EMA client", &world.journal).await?;
    check(found.issuer() == world.accept_issuer(), "Jagway is named as the authorization server")?;
    check(
        found.token_endpoint() == world.accept_token_endpoint(),
        "Jagway's token endpoint is published",
    )?;

    let id_jag = world.exchange_for_warehouse().await;
    check(id_jag.status == 200, "the IdP issues an ID-JAG for Jagway")?;
    let token = world.redeem_at_jagway(id_jag.token()).await;
    check(token.status == 200, "Jagway redeems the ID-JAG")?;
    check(token.cache_control.as_deref() == Some("no-store"), "the token may not be cached")?;

    let mut client = world.client_with_access_token(token.token());
    client.initialize().await.map_err(told)?;
    let tools = client.tools().await.map_err(told)?;
    check(tools == ["stock_list", "echo"], "the tools of Warehouse are listed")?;
    let stock = client.call("stock_list", json!({})).await.map_err(told)?;
    check(stock["kettles"] == 12, "Warehouse answers")?;

    let seen = world.warehouse.recorder.requests();
    let keyed =
        seen.iter().all(|request| request.header("x-api-key") == [world.warehouse_key.as_str()]);
    check(keyed && !seen.is_empty(), "Warehouse got its own key")?;
    let clean = seen.iter().all(|request| {
        !request.mentions(token.token()) && request.header("authorization").is_empty()
    });
    check(clean, "the client's token did not reach Warehouse")
}

async fn refusals(world: &World) -> Outcome {
    let (header, claims) = world.idp.id_jag_parts(&world.warehouse_connection(), "alice");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims["jti"] = json!(format!("spoiled-{name}"));
        claims[name] = value;
        world.idp.sign(&claims, &header)
    };
    let used = world.idp.sign(&claims, &header);
    check(world.redeem_at_jagway(&used).await.status == 200, "a sound ID-JAG is redeemed, once")?;
    let bytes_before = world.warehouse.server.bytes_received();

    let cases = [
        (
            "forged: signed with another key under the same name",
            SigningKey::es256(world.idp.key().kid()).sign(&header, &claims),
        ),
        ("expired", with("exp", json!(now() - 120))),
        ("made out to another authorization server", with("aud", json!("http://other.example"))),
        ("used before", used),
    ];
    for (name, id_jag) in cases {
        show::note(&world.journal, name);
        let answer = world.redeem_at_jagway(&id_jag).await;
        let refused = answer.status == 400 && answer.error() == "invalid_grant";
        check(
            refused,
            &format!("400 invalid_grant when {name}: {} {}", answer.status, answer.body),
        )?;
    }
    check(world.warehouse.server.bytes_received() == bytes_before, "Warehouse saw not a byte of it")
}

fn check(held: bool, claim: &str) -> Outcome {
    show::checked(held, claim);
    if held { Ok(()) } else { Err(format!("not so: {claim}")) }
}

fn told(error: McpError) -> String {
    match error {
        McpError::Http(answer) => format!("{} {}", answer.status, answer.body),
        McpError::Rpc(error) => error.to_string(),
    }
}
