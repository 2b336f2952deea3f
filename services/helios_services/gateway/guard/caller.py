"""Who calls, and what they may."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from helios_services.jobs.records import NOBODY, Account


class Scope(StrEnum):
    """What a key may be allowed. Everything but admin is confined to the key's tenant."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"


SCOPES: Mapping[str, frozenset[Scope]] = {
    "SubmitJob": frozenset({Scope.SUBMIT}),
    "GetJob": frozenset({Scope.READ}),
    "ListJobs": frozenset({Scope.READ}),
    "CancelJob": frozenset({Scope.CANCEL}),
    "RequeueJob": frozenset({Scope.ADMIN}),
    "PurgeJob": frozenset({Scope.ADMIN}),
    "WatchJob": frozenset({Scope.READ}),
    "StreamVideo": frozenset({Scope.READ}),
    "GenerateVideo": frozenset({Scope.SUBMIT, Scope.READ}),
    "UpdatePrompt": frozenset({Scope.SUBMIT}),
    "Interact": frozenset({Scope.SUBMIT, Scope.READ}),
    "UploadMedia": frozenset({Scope.SUBMIT}),
    "DownloadVideo": frozenset({Scope.READ}),
    "ListModels": frozenset(),
    "CreateToken": frozenset(),
    "DeleteJob": frozenset({Scope.CANCEL}),
}
"""What each call needs; admin may call everything. Every door names its calls so. HTTP alone has CreateToken
and DeleteJob."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who a call is made for. admin: sees every tenant's jobs.

    terms: what a token allows of what its key may; None: the call came with the key itself.
    """

    key_id: str = ""
    tenant: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    account: Account = NOBODY
    terms: "Terms | None" = None

    @property
    def admin(self) -> bool:
        """Whether the caller may see other tenants' jobs."""
        return Scope.ADMIN in self.scopes

    def may_see(self, tenant: str) -> bool:
        """Whether a job or an upload of this tenant exists for the caller."""
        return self.admin or hmac.compare_digest(tenant.encode(), self.tenant.encode())

    def may_see_job(self, job_id: str, tenant: str) -> bool:
        """Whether this job does: a token for one session has no other."""
        only = self.terms.job_id if self.terms is not None else ""
        return self.may_see(tenant) and (not only or hmac.compare_digest(job_id.encode(), only.encode()))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a token allows. models: those that jobs may name; empty: all. job_id: the only job that there is for it;
    empty: all of the tenant. starts: whether it may start that job, which has the id then."""

    models: frozenset[str] = frozenset()
    job_id: str = ""
    starts: bool = True


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that was let in. method: its name in SCOPES. left_s: what its client gives it (None: no limit)."""

    method: str
    caller: Caller
    left_s: float | None = None
