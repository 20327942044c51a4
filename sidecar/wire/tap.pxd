# The types with which tap.py is compiled. Nothing here changes what it does.

cimport cython

from sidecar.wire cimport scanner as compiled

cdef int _FIN, _CONTROL, _TEXT, _FIN_TEXT, _FIN_BINARY, _FIN_PONG, _PASS, _NEVER
cdef int _RAW, _BEGINNING, _BLOCK, _NEEDLE
cdef bytearray _SCRATCH


cdef class TappedScanner:
    cdef readonly int verdict
    cdef readonly long long remaining
    cdef compiled.FrameScanner _inner
    cdef object _pattern
    cdef long long _max_size
    cdef int _pong_size
    cdef bytes _own_pong, _needle, _escape, _ready, _key
    cdef bint _last
    cdef list _taken, _next
    cdef bytearray _raw, _text, _control

    @cython.locals(
        inner=compiled.FrameScanner, kept=list, whole=cython.bint, asked=cython.bint,
        at=cython.longlong, pongs=cython.longlong, end=cython.longlong, start=cython.longlong,
        first=cython.int, length=cython.longlong, body=cython.longlong, after=cython.longlong,
    )
    cpdef bytes feed(self, bytes data, double now)

    cpdef list take(self)

    cpdef object change(self, object pattern, object own_pong)

    cdef object _look_for(self, object pattern)

    cdef bytes _given(self)

    cdef bint _looked_at(self, int first, long long length)

    @cython.locals(first=cython.int, after=cython.longlong, size=cython.longlong)
    cdef bint _kept_back(
        self, bytes data, long long at, long long body, long long length, bint whole
    )

    cdef bint _keep_control(
        self, bytes data, long long at, long long body, long long length, bint whole
    )

    cdef long long _go_on(self, bytes data, long long end, bint whole)

    @cython.locals(before=cython.longlong, turn=cython.int, taken=cython.bint, raw=bytes)
    cdef void _grow(self, bytes data, long long start, long long end, bint whole)

    cdef bint _begins(self)

    cdef bint _take(self, bytes payload)

    cdef bytes _flush(self)

    cdef bint _could(self, bytes data, long long body, long long after)

    @cython.locals(at=cython.longlong, key=cython.longlong, first=cython.int)
    cdef bint _glance(self, const unsigned char *data, long long body, long long after)

    @cython.locals(
        target="unsigned char *", at=cython.longlong, fours=cython.longlong, end=cython.longlong,
        mask0=cython.uchar, mask1=cython.uchar, mask2=cython.uchar, mask3=cython.uchar,
        byte0=cython.uchar, byte1=cython.uchar, byte2=cython.uchar,
        escape0=cython.uchar, escape1=cython.uchar,
        needle=bytes, escape=bytes, tail=cython.longlong,
        found=cython.uchar,
    )
    cdef bint _in_block(
        self, const unsigned char *data, long long key, long long start, long long size
    )
