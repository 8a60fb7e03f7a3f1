//! DescribeAcls, CreateAcls, DeleteAcls: the broker has no authorizer, and says so as Kafka's does then. Tools take it for
//! what it is and go on; to them an API that is not there would be an error.

use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::protocol::ErrorCode;

const CODE: i16 = ErrorCode::SecurityDisabled.code();

fn reason() -> Option<StrBytes> {
    Some(StrBytes::from_static_str("No authorizer is configured."))
}

/// Why no ACLs are shown.
pub fn described() -> DescribeAclsResponse {
    DescribeAclsResponse::default().with_error_code(CODE).with_error_message(reason())
}

/// Why none of these is created.
pub fn created(request: &CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult::default().with_error_code(CODE).with_error_message(reason());
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}

/// Why nothing is deleted by any of these filters.
pub fn deleted(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default().with_error_code(CODE).with_error_message(reason());
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
