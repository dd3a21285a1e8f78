"""Who may do what: TLS, keys, tokens, roles, tenants, quotas, the audit log. One door for gRPC and for HTTP."""
