use axum::Router;
use crate::node::Node;
pub(crate) fn router(_node: &Node) -> Router { Router::new() }
