"""Signing in with Google, with every check of OpenID Connect made here.

allauth brings the flow (state, PKCE, the code for tokens). Its own provider trusts an ID token
that comes straight from the token endpoint without looking at the signature, and knows no nonce;
ours checks both, and takes nothing of the request into the parameters it sends.
"""
