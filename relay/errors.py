"""Every error the relay shows, and whose fault it is.

    RelayError                       never raised itself
    +- CallerError                   400  the request cannot be served as it stands
    |  +- BadParameter               400  one parameter is wrong; `param` says which
    |  |  +- Unsupported             400  right, but this target cannot do it
    |  |     +- NoSuchOperation      400  it does not do this at all; another target may
    |  +- NoKey                      401  no key, or not one of ours
    |  +- OutOfBudget                402  the key's money is spent
    |  +- NotAllowed                 403  the key may not do this
    |  +- NoSuchModel                404  no target serves that name
    |  +- NoSuchRoute                404  nothing lives at that path
    |  +- NoSuchMethod               405  the path exists, the method does not
    |  +- TooLarge                   413  the body is over the limit
    |  +- Misdirected                421  asked under a name that is not the relay's
    |  +- RateLimited                429  a limit of ours; `retry_after` is exact
    +- UpstreamError                 502  the upstream is at fault
    |  +- UpstreamRefused            its own 4xx, passed on: the request is at fault after all
    |  +- UpstreamBusy               429 or 503, its limits or overload
    |  +- UpstreamTimeout            504  it did not answer in time
    |  +- UpstreamUnreachable        502  no connection: nothing was sent, so trying elsewhere is safe
    |  +- UpstreamProtocol           502  it answered something that is not its protocol, or broke off
    |     +- UpstreamHungUp          502  it closed the connection without an answer: it may have run the request
    +- Unavailable                   503  the relay itself cannot serve now (shutting down, no target left)
    |  +- CoolingDown                503  every target failed a moment ago; 429 if all were rate limits
    +- PluginError                   500  a plugin broke; it is named
    +- InternalError                 500  ours

An upstream's 401 or 403 is about *our* credentials. It is never shown as 401: the client would believe that its own key
is bad and throw it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from relay.secret import Secret

__all__ = [
    "BadParameter",
    "CallerError",
    "CoolingDown",
    "InternalError",
    "Misdirected",
    "NoKey",
    "NoSuchMethod",
    "NoSuchModel",
    "NoSuchOperation",
    "NoSuchRoute",
    "NotAllowed",
    "OutOfBudget",
    "PluginError",
    "RateLimited",
    "RelayError",
    "TooLarge",
    "Unavailable",
    "Unsupported",
    "UpstreamBusy",
    "UpstreamError",
    "UpstreamHungUp",
    "UpstreamProtocol",
    "UpstreamRefused",
    "UpstreamTimeout",
    "UpstreamUnreachable",
]

UpstreamOutcome: TypeAlias = Literal["upstream_error", "upstream_cut", "timeout"]
INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION = "authentication_error"
RATE_LIMIT = "rate_limit_exceeded"
API_ERROR = "api_error"


class RelayError(Exception):
    """Base of all errors with a place in the API. `message` is shown to the client, so it never holds a secret."""

    status: int = 500
    type: str = API_ERROR
    code: str = "internal_error"
    retry_after: float | None = None
    """Seconds after which trying again makes sense; None if nobody knows."""
    should_retry: bool | None = None
    """False tells clients that understand `x-should-retry` to stop at once; None leaves it to them."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        if retry_after is not None:
            self.retry_after = retry_after


class CallerError(RelayError):
    """The request is at fault."""

    status = 400
    type = INVALID_REQUEST
    code = "invalid_request"


class BadParameter(CallerError):
    """A parameter is missing, of the wrong type or out of range. `param` is its path, as in `messages[2].content`."""

    code = "invalid_parameter"


class Unsupported(BadParameter):
    """The request is valid, and this target has no way to carry it."""

    code = "unsupported_parameter"


class NoSuchOperation(Unsupported):
    """The model's upstream does not do this at all, whatever the parameters. Nothing was asked of it."""

    code = "unsupported_operation"


class NoKey(CallerError):
    """No key was sent, or it is unknown, expired or revoked. The message is the same for all of these."""

    status = 401
    type = AUTHENTICATION
    code = "invalid_api_key"
    should_retry = False


class OutOfBudget(CallerError):
    """The key's budget is spent."""

    status = 402
    code = "budget_exceeded"
    should_retry = False


class NotAllowed(CallerError):
    """The key is good, and may not do this."""

    status = 403
    code = "not_allowed"
    should_retry = False


class NoSuchModel(CallerError):
    """No upstream serves a model of that name, or the key may not see it."""

    status = 404
    code = "model_not_found"


class NoSuchRoute(CallerError):
    """Nothing lives at that path."""

    status = 404
    code = "not_found"


class NoSuchMethod(CallerError):
    """The path exists, and does not answer that method."""

    status = 405
    code = "method_not_allowed"


class TooLarge(CallerError):
    """The request body is over the configured limit."""

    status = 413
    code = "request_too_large"


class Misdirected(CallerError):
    """The request names a host that this relay does not answer to."""

    status = 421
    code = "misdirected_request"
    should_retry = False


class RateLimited(CallerError):
    """A limit of the relay. `limit` names it (`key requests per minute`); `retry_after` is when it would pass."""

    status = 429
    type = RATE_LIMIT
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, limit: str, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.limit = limit


class UpstreamError(RelayError):
    """The upstream is at fault, or refused. `retryable` means: another target may do better."""

    status = 502
    type = API_ERROR
    code = "upstream_error"
    retryable: bool = True
    blames: bool = True
    """Whether it is held against the target; False for what a caller can bring about."""
    outcome: ClassVar[UpstreamOutcome] = "upstream_error"
    """How a call that ends with this error is recorded."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        upstream_status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code, status=status, retry_after=retry_after)
        self.upstream_status = upstream_status
        if retryable is not None:
            self.retryable = retryable

    def hide(self, secret: Secret | None) -> None:
        """Take a credential out of all that the upstream said: some repeat it."""
        if secret is not None:
            self.message, self.code = secret.mask(self.message), secret.mask(self.code)
            self.param = None if self.param is None else secret.mask(self.param)


class UpstreamRefused(UpstreamError):
    """The upstream called the request wrong (400, 404, 413, 422). Another target would say the same."""

    status = 400
    type = INVALID_REQUEST
    code = "upstream_refused"
    retryable = False


class UpstreamBusy(UpstreamError):
    """The upstream is over its limits or overloaded (429, 503, 529)."""

    status = 429
    type = RATE_LIMIT
    code = "upstream_rate_limited"


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer, or fell silent, for longer than the configured time."""

    status = 504
    code = "upstream_timeout"
    outcome: ClassVar[UpstreamOutcome] = "timeout"
    retryable = False


class UpstreamUnreachable(UpstreamError):
    """No connection could be made. Nothing was sent, so nothing was billed."""

    code = "upstream_unreachable"


class UpstreamProtocol(UpstreamError):
    """The upstream sent something that is not its protocol, or broke off in mid-answer."""

    code = "upstream_protocol_error"
    outcome: ClassVar[UpstreamOutcome] = "upstream_cut"
    retryable = False


class UpstreamHungUp(UpstreamProtocol):
    """The upstream closed the connection without an answer. Nobody knows whether it has run the request."""

    code = "upstream_hung_up"


class Unavailable(RelayError):
    """The relay cannot serve this now: it is shutting down, or every target is out."""

    status = 503
    type = API_ERROR
    code = "unavailable"


class CoolingDown(Unavailable):
    """Every target of the model has failed a moment ago, so nothing was sent. 429 if all are over their rate limits."""

    code = "upstream_cooling_down"

    def __init__(self, message: str, *, retry_after: float, limited: bool) -> None:
        super().__init__(message, status=429 if limited else None, retry_after=retry_after)
        if limited:
            self.type = RATE_LIMIT


class PluginError(RelayError):
    """A plugin raised, or answered something its hook does not allow. It is named; the details stay in the log."""

    status = 500
    type = API_ERROR
    code = "plugin_error"

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(f"plugin {plugin!r} {message}")
        self.plugin = plugin


class InternalError(RelayError):
    """A fault of the relay itself. Details stay in the log, under the request id."""
