# The types with which scanner.py is compiled. Nothing here changes what it does.
# Python sees what is readonly, public or cpdef, and every constant but those in the list.

cimport cython

# The module, not its class: scanner.py offers Bucket to its importers, as a name of Python's.
from sidecar.wire cimport buckets as compiled

cdef int _PASS, _DROP, _FIN, _OPCODE, _CONTROL, _FIN_TEXT, _FIN_BINARY, _FIN_CLOSE, _FIN_PONG, _TINY


cdef class FrameScanner:
    cdef readonly int verdict, close_code
    cdef readonly str detail
    cdef readonly double wait, active_at
    cdef readonly long long remaining, dropped, pongs
    cdef public long long frames, messages, payload_bytes  # the relay sets them back at an end
    cdef readonly bytes close_reason, _held
    cdef int _mask_bit, _head
    cdef long long _max_message, _max_frame, _skip, _message
    cdef compiled.Bucket _messages_bucket, _payload_bucket, _controls_bucket
    cdef bint _metered, _fragmented, _dropping

    @cython.locals(
        end=cython.longlong, at=cython.longlong, start=cython.longlong, kept=list,
        mask_bit=int, head=int, max_frame=cython.longlong, max_message=cython.longlong,
        first=cython.int, second=cython.int, whole=cython.bint,
        length=cython.longlong, body=cython.longlong, fate=cython.int,
    )
    cpdef bytes feed(self, bytes data, double now)

    cdef bytes _go_on(self, bytes data)

    @cython.locals(
        end=cython.longlong, start=cython.longlong, last=cython.longlong,
        count=cython.longlong, headers=cython.longlong, payload=cython.longlong,
        mask_bit=cython.int, head=cython.int, extended=cython.int, longest=cython.longlong,
        first=cython.int, second=cython.int, length=cython.longlong, body=cython.longlong,
    )
    cdef long long _whole_messages(self, bytes data, long long at, double now)

    @cython.locals(bucket=compiled.Bucket, fate=cython.int)
    cdef int _admit(self, int first, long long length, double now)

    @cython.locals(
        wait=cython.double, opening=cython.bint,
        messages=compiled.Bucket, payload=compiled.Bucket,
    )
    cdef int _charge(self, int first, long long length, double now)

    cdef int _exceed(self, int on_exceed, double wait, bint opening, str what)

    @cython.locals(wrong=str)
    cdef bint _forbidden(self, int first, int second)

    @cython.locals(payload=bytes)
    cdef bint _closed(self, bytes data, long long body, long long length)

    cdef int _fail(self, int verdict, str detail)
