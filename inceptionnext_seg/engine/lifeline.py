class Lifeline:
    def begin(self): pass
    def end(self, cause=None): pass


LIFELINE = Lifeline()
