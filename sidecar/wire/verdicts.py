"""What a scanner says of what it was fed. PASS, WAIT and TAKEN go on, all others are final.

PASS            go on
CLOSED          the bytes returned end with a valid close frame
WAIT            the scanner keeps the rest, `feed(b"", later)` goes on with it; stop reading until
                then
PROTOCOL_ERROR, TOO_BIG, RATE
                the bytes returned end before the offending frame
TAKEN           go on; messages were taken out of the stream, `TappedScanner.take` gives them

After a final verdict everything else is discarded.
"""

__all__ = ["CLOSED", "PASS", "PROTOCOL_ERROR", "RATE", "TAKEN", "TOO_BIG", "WAIT"]

PASS = 0
CLOSED = 1
WAIT = 2
PROTOCOL_ERROR = 3
TOO_BIG = 4
RATE = 5
TAKEN = 7  # 6 is the scanner's own, for a frame that is left out
