"""The API of projects and annotating.

Every view finds its object through annotation.policy, so what is not yours is 404; reads its input
through a strict serializer; and calls one service.
"""
