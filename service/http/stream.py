"""Sends a response in parts.

Invariant: the generator of the parts is closed before the request ends, however it ends. An error before the first part
is an ordinary response; after it, it becomes the last part.
"""

from contextlib import aclosing
from http import HTTPStatus

from service.errors import EkibenError, forget_traceback
from service.http.route import InferenceRoute
from service.http.wire.errors import STATUS
from service.http.wire.framework_errors import internal_error
from service.http.wire.messages import ClientDisconnectedError, HttpRequest, SendPart, StreamedResponse


async def send_stream(route: InferenceRoute, request: HttpRequest, response: StreamedResponse) -> int:
    """Send all parts; return 200, or the status of the error that ended the stream.

    Raises the error of the first part, and ClientDisconnectedError.
    """
    async with aclosing(response.parts) as parts:
        part = await anext(parts)
        send = _observed(request, await request.start_stream(response))
        status = int(HTTPStatus.OK)
        try:
            await send(part)
            async for part in parts:
                await send(part)
        except ClientDisconnectedError:
            raise
        except EkibenError as error:
            status = int(STATUS[error.slug])
            forget_traceback(error)
            await send(response.error_part(error))
        except Exception as error:  # noqa: BLE001 - as an unforeseen error of a response
            status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
            answered = internal_error(request.method, route.name, request.id)
            forget_traceback(error)
            await send(response.error_part(answered))
    await request.end_stream()
    return status


def _observed(request: HttpRequest, send: SendPart) -> SendPart:
    """The function, with whatever observes the request told of every part that was sent."""
    if request.observation is None:
        return send

    async def send_observed(part: bytes) -> None:
        await send(part)
        request.observation.sent(part)

    return send_observed
