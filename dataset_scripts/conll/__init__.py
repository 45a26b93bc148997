"""Any corpus in files: the IMGID format of Twitter-2015, Twitter-2017 and MMNERD, and the indexed format of WikiNEuRal."""
