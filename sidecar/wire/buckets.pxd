# The types with which buckets.py is compiled. Nothing here changes what it does.

cdef class Bucket:
    cdef readonly int on_exceed
    cdef double _rate, _burst, _slack, _level, _at

    cpdef double take(self, double cost, double now)
    cpdef bint take_all(self, double cost, double now)
    cpdef give_back(self, double cost)


cpdef bint take_both(
    Bucket first, double cost, Bucket second, double other_cost, double now
)
