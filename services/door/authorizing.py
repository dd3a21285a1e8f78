"""Whether a caller may call a method, and for which tenant."""

from __future__ import annotations

from encoder.errors import PermissionDenied
from services.door.principal import Principal
from services.door.rules import TenantIn, rule_of


def authorize(principal: Principal, method: str, tenant: str = "") -> str:
    """Give the tenant that a call is for; empty where the caller sees all and names none.

    ``method`` is a full name, "/mambasearch.v1.SearchService/Search"; ``tenant`` is what the request names.
    :class:`PermissionDenied` for a role that the caller has not, for a method without a rule, and for a tenant that is
    not the caller's, whether it exists or not; :class:`encoder.errors.InvalidInput` where one has to be named.
    """
    check_role(principal, method)
    rule = rule_of(method)
    return principal.tenant_for(tenant) if rule and rule.tenant is TenantIn.FIELD else tenant


def check_role(principal: Principal, method: str) -> None:
    """Raise :class:`PermissionDenied` where the caller has no role that may call a method."""
    rule = rule_of(method)
    name = method.rpartition("/")[2]
    if rule is None:
        raise PermissionDenied(f"{name} may be called by nobody: no rule says who.")
    if not principal.has_one_of(rule.roles):
        roles = " or ".join(sorted(role.value for role in rule.roles))
        raise PermissionDenied(f"{name} needs the role {roles}, which this caller has not.")
