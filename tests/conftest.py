"""What all tests share: property tests repeat exactly, and print how to reproduce a failure."""

from hypothesis import settings

settings.register_profile("binarynet", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("binarynet")
