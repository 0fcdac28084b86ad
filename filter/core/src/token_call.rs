//! A request to another server's token endpoint, as one of our clients there.

use crate::client_credential::token_request;
use crate::config::{Client, Party};
use crate::discovery::{no_answer, token_endpoint};
use crate::flow::Ctx;
use crate::http::Answer;
use crate::job::JobError;
use crate::site::Site;
use std::rc::Rc;

/// Posts `fields` to the token endpoint of `party`, authenticated as `client`, and waits for the answer,
/// whatever it says.
pub async fn post(
    ctx: &Ctx,
    site: &Rc<Site>,
    party: &Rc<Party>,
    client: &Client,
    fields: &[(&str, &str)],
) -> Result<Answer, JobError> {
    let endpoint = token_endpoint(ctx, site, party).await?;
    let (now, random) = (ctx.now(), ctx.random());
    let callout = token_request(party, &endpoint, client, fields, now, &random);
    ctx.call(callout).await.map_err(|failed| no_answer(site, party, failed))
}
