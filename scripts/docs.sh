#!/usr/bin/env bash
# Writes the pages of docs/ that are made from the code: docs/apis.md.
set -euo pipefail
cd "$(dirname "$0")/.."
RINGLOG_WRITE_DOCS=1 cargo test --quiet --lib protocol::versions::tests::the_page_of_apis
