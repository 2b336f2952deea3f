"""What a caller can ask for, whichever door the call came through.

Requests are messages of the API's proto file: it describes each of them once, and a door of any kind can make one.
Answers are records of the job store, which a door writes as its clients read them.
"""
